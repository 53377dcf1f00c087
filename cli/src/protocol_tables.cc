// SPDX-License-Identifier: Apache-2.0
// Lays out what a protocol's rows reached.
#include "protocol_tables.h"

#include <boost/json/array.hpp>
#include <boost/json/value_from.hpp>
#include <cmath>
#include <cstdio>

#include "perennial/continual/statistics.h"

namespace perennial::cli {
namespace {

namespace json = boost::json;

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", 100 * share);
  return text;
}

std::string percent_sd(const std::vector<double>* values) {
  if (values == nullptr || values->empty()) return "-";
  const continual::SeedStatistics s = continual::statistics_of(*values);
  return s.sd ? percent(s.mean) + " ± " + percent(*s.sd) : percent(s.mean);
}

const std::vector<std::string> kColumns = {"strategy", "acc",  "bwt.gem", "forgetting.chaudhry",
                                           "seconds",  "seeds"};

std::vector<std::string> cells_of(const continual::ResultRow& row) {
  const std::vector<double>* acc = row.find("acc");
  const std::vector<double>* seconds = row.find("seconds");
  char mean_seconds[32];
  std::snprintf(mean_seconds, sizeof mean_seconds, "%.1f",
                seconds == nullptr ? 0 : continual::statistics_of(*seconds).mean);
  return {row.strategy,
          percent_sd(acc),
          percent_sd(row.find("bwt.gem")),
          percent_sd(row.find("forgetting.chaudhry")),
          mean_seconds,
          std::to_string(acc == nullptr ? 0 : acc->size())};
}

}  // namespace

continual::TextTable results_table(const continual::Protocol& protocol, const std::string& dataset,
                                   const std::vector<continual::ResultRow>& rows) {
  continual::TextTable table{"With the protocol's settings", kColumns, {}};
  table.columns.insert(table.columns.end(), {"published", "difference"});
  for (const continual::ResultRow& row : rows) {
    std::vector<std::string>& cells = table.rows.emplace_back(cells_of(row));
    const continual::PublishedResult* published = protocol.find(row.strategy, dataset);
    if (published == nullptr) {
      cells.insert(cells.end(), {"-", "-"});
      continue;
    }
    cells.push_back(percent(published->acc));
    if (published->spread) cells.back() += " ± " + percent(*published->spread);
    const std::vector<double>* acc = row.find("acc");
    const double mean = acc == nullptr ? 0 : continual::statistics_of(*acc).mean;
    char difference[32];
    std::snprintf(difference, sizeof difference, "%+.2f", 100 * (mean - published->acc));
    cells.emplace_back(difference);
  }
  return table;
}

continual::TextTable tuned_table(const std::vector<TunedRow>& rows) {
  continual::TextTable table{"Each row at its own best", kColumns, {}};
  table.columns.insert(table.columns.end(), {"on validation", "chosen"});
  const std::string percentage = std::to_string(std::lround(100 * continual::kTuningShare));
  table.notes.push_back("Chosen by the accuracy on " + percentage +
                        "% of each class's training examples, held out (seed " +
                        std::to_string(continual::kTuningSeed) +
                        "); the results are of new runs that learn from all of them.");
  for (const TunedRow& row : rows) {
    std::vector<std::string>& cells = table.rows.emplace_back(cells_of(row.result));
    cells.push_back(percent(row.tuning.best->acc));
    cells.push_back(row.tuning.best->trial.text());
    for (const std::string& edge : row.tuning.edges) {
      table.notes.push_back(row.result.strategy + ": " + edge + "; a better one may lie beyond.");
    }
  }
  return table;
}

json::object row_json(const continual::ResultRow& row,
                      const continual::PublishedResult* published) {
  json::object object{{"strategy", row.strategy}};
  for (const auto& [metric, values] : row.metrics) {
    const continual::SeedStatistics s = continual::statistics_of(values);
    object[metric] = s.mean;
    object[metric + ".sd"] = s.sd ? json::value(*s.sd) : json::value(nullptr);
    if (metric == "acc") object["seeds"] = s.n;
  }
  if (published != nullptr) {
    object["published"] = {{"acc", published->acc}, {"source", published->source}};
  }
  return object;
}

json::object row_json(const TunedRow& row) {
  json::object object = row_json(row.result, nullptr);
  object["settings"] = row.tuning.best->trial.settings;
  object["validation_acc"] = row.tuning.best->acc;
  object["edges"] = json::value_from(row.tuning.edges);
  json::array trials;
  for (const continual::Tried& tried : row.tuning.tried) {
    trials.push_back({{"settings", tried.trial.settings}, {"validation_acc", tried.acc}});
  }
  object["trials"] = std::move(trials);
  return object;
}

}  // namespace perennial::cli
