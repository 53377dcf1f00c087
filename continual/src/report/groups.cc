// SPDX-License-Identifier: Apache-2.0
// Grouping, names and means.
#include "report/groups.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <map>
#include <set>

#include "report/html.h"

namespace perennial::continual::report {

namespace json = boost::json;

namespace {

constexpr const char* kDataset = "stream.dataset";
constexpr const char* kThen = ", then ";

// The settings in the order of the configuration, "section.field" and text.
std::vector<std::pair<std::string, std::string>> settings_of(const RunFolder& run) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& section : run.config) {
    if (!section.value().is_object()) continue;
    for (const auto& field : section.value().get_object()) {
      if (is_seed(field.key())) continue;
      const std::string name = std::string(section.key()) + "." + std::string(field.key());
      all.emplace_back(
          name, name == kDataset ? datasets_of(run) : run.setting(section.key(), field.key()));
    }
  }
  return all;
}

std::string key_of(const RunFolder& run) {
  if (run.config.empty()) return cat({"folder ", run.folder.string()});
  std::string key = std::to_string(run.matrix.experiences());
  for (const auto& [field, value] : settings_of(run)) key += cat({"\n", field, "=", value});
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
std::optional<std::vector<double>> joint_scores(const Group& group,
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

// A name lists at least so many of the settings that differ, and more where rows need them.
constexpr std::size_t kNamedSettings = 3;

// Strategies of one name are told apart by what differs between them, and all by their data sets.
void name_groups(std::vector<Group>& groups) {
  const auto of_all = differing_settings(groups);
  const auto datasets = std::find_if(of_all.begin(), of_all.end(),
                                     [](const auto& field) { return field.first == kDataset; });
  std::map<std::string, std::vector<std::size_t>> by_strategy;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const RunFolder& run = groups[i].first();
    const std::string strategy = run.strategy();
    by_strategy[strategy.empty() ? run.folder.filename().string() : strategy].push_back(i);
  }
  for (const auto& [strategy, same] : by_strategy) {
    std::vector<Group> copies;
    for (const std::size_t i : same) copies.push_back(groups[i]);
    auto differing = differing_settings(copies);
    std::erase_if(differing, [](const auto& field) { return field.first == kDataset; });
    std::vector<std::string> details(same.size());
    for (std::size_t i = 0; datasets != of_all.end() && i < same.size(); ++i) {
      details[i] = datasets->second[same[i]];
    }
    for (std::size_t d = 0; d < differing.size(); ++d) {
      const std::set<std::string> distinct(details.begin(), details.end());
      if (d >= kNamedSettings && distinct.size() == details.size()) break;
      const std::string& field = differing[d].first;
      for (std::size_t i = 0; i < same.size(); ++i) {
        details[i] += cat({(details[i].empty() ? "" : ", "), field.substr(field.find('.') + 1), " ",
                           differing[d].second[i]});
      }
    }
    for (std::size_t i = 0; i < same.size(); ++i) {
      groups[same[i]].name = details[i].empty() ? strategy : cat({strategy, " (", details[i], ")"});
    }
  }
  // Settings that were not recorded cannot tell.
  std::map<std::string, int> used;
  for (const Group& group : groups) ++used[group.name];
  for (Group& group : groups) {
    if (used[group.name] > 1) group.name += cat({" in ", group.first().folder.string()});
  }
}

// Paths as their last parts, where those are as different.
void shorten(std::vector<std::string>& datasets) {
  std::vector<std::string> names;
  for (const std::string& dataset : datasets) {
    names.push_back(std::filesystem::path(dataset).filename().string());
  }
  const std::set<std::string> all(datasets.begin(), datasets.end());
  const std::set<std::string> distinct(names.begin(), names.end());
  const bool several = std::any_of(
      datasets.begin(), datasets.end(),
      [](const std::string& dataset) { return dataset.find(kThen) != std::string::npos; });
  if (!several && distinct.size() == all.size()) datasets = std::move(names);
}

}  // namespace

std::string datasets_of(const RunFolder& run) {
  std::string text;
  for (std::size_t i = 0; i < run.datasets.size(); ++i) {
    if (i > 0 && run.datasets[i] == run.datasets[i - 1]) continue;
    text += cat({(text.empty() ? "" : kThen), run.datasets[i]});
  }
  return text;
}

bool is_seed(std::string_view field) { return field == "seed" || field.ends_with("_seed"); }

std::vector<Group> group_runs(const std::vector<RunFolder>& runs, std::size_t& repeated) {
  std::vector<Group> groups;
  std::vector<std::string> keys;
  std::set<std::string> seen;
  repeated = 0;
  for (const RunFolder& run : runs) {
    const std::string whole = run.config.empty() ? ""
                                                 : json::serialize(run.config) + datasets_of(run) +
                                                       json::serialize(run.matrix.to_json());
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
      metric == "intransigence" ? joint_scores(group, groups) : std::nullopt;
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

std::map<std::int64_t, std::vector<double>> mean_errors(const Group& group,
                                                        const std::string& target) {
  struct Sum {
    double sum = 0;
    int count = 0;
  };
  std::map<std::int64_t, std::vector<Sum>> sums;  // a test set each
  for (const RunFolder* run : group.runs) {
    const auto errors = std::ranges::find(run->errors, target, &TargetErrors::target);
    if (errors == run->errors.end()) continue;
    for (const auto& [row, of_sets] : errors->rows) {
      std::vector<Sum>& all = sums[row];
      all.resize(std::max(all.size(), of_sets.size()));
      for (std::size_t j = 0; j < of_sets.size(); ++j) {
        all[j].sum += of_sets[j];
        ++all[j].count;
      }
    }
  }
  std::map<std::int64_t, std::vector<double>> means;
  for (const auto& [row, of_sets] : sums) {
    for (const Sum& of_set : of_sets) means[row].push_back(of_set.sum / of_set.count);
  }
  return means;
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
    if (std::none_of(row.begin(), row.end(), other)) continue;
    if (field == kDataset) shorten(row);
    differing.emplace_back(field, std::move(row));
  }
  return differing;
}

}  // namespace perennial::continual::report
