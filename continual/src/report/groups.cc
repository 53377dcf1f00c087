// SPDX-License-Identifier: Apache-2.0
// Grouping, names and means.
#include "report/groups.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <map>
#include <set>

#include "report/html.h"

namespace perennial::continual::report {

namespace json = boost::json;

namespace {

// The settings in the order of the configuration, "section.field" and text.
std::vector<std::pair<std::string, std::string>> settings_of(const RunFolder& run) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& section : run.config) {
    if (!section.value().is_object()) continue;
    for (const auto& field : section.value().get_object()) {
      if (is_seed(field.key()) || field.key() == "dataset") continue;
      all.emplace_back(std::string(section.key()) + "." + std::string(field.key()),
                       run.setting(section.key(), field.key()));
    }
  }
  return all;
}

std::string key_of(const RunFolder& run) {
  if (run.config.empty()) return cat({"folder ", run.folder.string()});
  std::string key;
  for (const auto& [field, value] : settings_of(run)) key += cat({field, "=", value, "\n"});
  return key;
}

std::string stream_of(const RunFolder& run) {
  std::string key;
  for (const auto& [field, value] : settings_of(run)) {
    if (field.starts_with("stream.")) key += cat({field, "=", value, "\n"});
  }
  return key;
}

// The mean last row of the joint runs over the same stream.
std::optional<std::vector<double>> joint_accuracy(const Group& group,
                                                  const std::vector<Group>& groups) {
  for (const Group& other : groups) {
    if (other.first().strategy() != "joint" || stream_of(other.first()) != stream_of(group.first()))
      continue;
    const auto rows = mean_matrix(other);
    std::vector<double> last;
    for (const std::optional<double>& value : rows.back()) {
      if (value) last.push_back(*value);
    }
    if (std::ssize(last) == group.experiences()) return last;
  }
  return std::nullopt;
}

// Strategies of one name are told apart by what differs between them.
void name_groups(std::vector<Group>& groups) {
  std::map<std::string, std::vector<Group*>> by_strategy;
  for (Group& group : groups) {
    const std::string strategy = group.first().strategy();
    by_strategy[strategy.empty() ? group.first().folder.filename().string() : strategy].push_back(
        &group);
  }
  for (auto& [strategy, same] : by_strategy) {
    std::vector<Group> copies;
    for (const Group* group : same) copies.push_back(*group);
    const auto differing = differing_settings(copies);
    for (std::size_t i = 0; i < same.size(); ++i) {
      std::string details;
      for (std::size_t d = 0; d < differing.size() && d < 3; ++d) {
        const std::string& field = differing[d].first;
        details += cat({(details.empty() ? "" : ", "), field.substr(field.find('.') + 1), " ",
                        differing[d].second[i]});
      }
      same[i]->name = details.empty() ? strategy : strategy + " (" + details + ")";
    }
  }
}

}  // namespace

bool is_seed(std::string_view field) { return field == "seed" || field.ends_with("_seed"); }

std::vector<Group> group_runs(const std::vector<RunFolder>& runs, std::size_t& repeated) {
  std::vector<Group> groups;
  std::vector<std::string> keys;
  std::set<std::string> seen;
  repeated = 0;
  for (const RunFolder& run : runs) {
    const std::string whole =
        run.config.empty() ? ""
                           : json::serialize(run.config) + json::serialize(run.matrix.to_json());
    if (!whole.empty() && !seen.insert(whole).second) {
      ++repeated;
      continue;
    }
    const std::string key = key_of(run);
    const auto found = std::find(keys.begin(), keys.end(), key);
    if (found == keys.end()) {
      keys.push_back(key);
      groups.push_back({"", {&run}});
    } else {
      groups[static_cast<std::size_t>(found - keys.begin())].runs.push_back(&run);
    }
  }
  name_groups(groups);
  return groups;
}

std::optional<SeedStatistics> statistic(const Group& group, const std::string& metric,
                                        const std::vector<Group>& groups) {
  std::vector<double> values;
  const std::optional<std::vector<double>> joint =
      metric == "intransigence" ? joint_accuracy(group, groups) : std::nullopt;
  for (const RunFolder* run : group.runs) {
    if (metric == "intransigence") {
      const std::optional<double> value =
          joint && run->strategy() != "joint" && run->matrix.experiences() == std::ssize(*joint)
              ? intransigence(run->matrix, *joint)
              : std::nullopt;
      if (!value) return std::nullopt;
      values.push_back(*value);
      continue;
    }
    const json::object metrics = run->metrics();
    const json::value* value = metrics.if_contains(metric);
    if (value == nullptr || !value->is_number()) return std::nullopt;
    values.push_back(value->to_number<double>());
  }
  return statistics_of(values);
}

std::vector<std::vector<std::optional<double>>> mean_matrix(const Group& group) {
  const std::int64_t n = group.experiences();
  std::vector<std::vector<std::optional<double>>> rows(static_cast<std::size_t>(n) + 1);
  for (std::int64_t i = 0; i <= n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      int count = 0;
      for (const RunFolder* run : group.runs) {
        if (run->matrix.experiences() != n || !run->matrix.has(i, j)) continue;
        sum += run->matrix.at(i, j);
        ++count;
      }
      rows[static_cast<std::size_t>(i)].push_back(count > 0 ? std::optional(sum / count)
                                                            : std::nullopt);
    }
  }
  return rows;
}

std::vector<std::pair<std::string, std::vector<std::string>>> differing_settings(
    const std::vector<Group>& groups) {
  std::vector<std::string> fields;
  std::vector<std::map<std::string, std::string>> values;
  for (const Group& group : groups) {
    values.emplace_back();
    for (const auto& [field, value] : settings_of(group.first())) {
      values.back()[field] = value;
      if (std::find(fields.begin(), fields.end(), field) == fields.end()) fields.push_back(field);
    }
  }
  std::vector<std::pair<std::string, std::vector<std::string>>> differing;
  for (const std::string& field : fields) {
    std::vector<std::string> row;
    for (const auto& of_group : values) {
      const auto found = of_group.find(field);
      row.push_back(found == of_group.end() ? "-" : found->second);
    }
    const auto other = [&](const std::string& value) { return value != row.front(); };
    if (std::any_of(row.begin(), row.end(), other)) differing.emplace_back(field, std::move(row));
  }
  return differing;
}

}  // namespace perennial::continual::report
