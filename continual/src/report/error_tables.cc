// SPDX-License-Identifier: Apache-2.0
// Tables of what a regression's answers are off by, in the units of its targets.
#include <algorithm>
#include <cmath>
#include <set>

#include "report/charts.h"
#include "report/figures.h"
#include "report/html.h"

namespace perennial::continual::report {

namespace {

std::string error_text(double error) { return std::isfinite(error) ? plain(error) : "∞"; }

std::string error_table(const Group& group, const std::string& target, bool named) {
  TableFigure table;
  const std::string of = cat({"rmse of ", target});
  table.caption = {"rmse", cat({named ? cat({group.name, ": ", of}) : of, " on each test set"}),
                   "root mean squared error, in the units of the data; row: experiences learnt"};
  if (group.runs.size() > 1) {
    table.caption.note += cat({"; mean of ", std::to_string(group.runs.size()), " runs"});
  }
  table.columns = {"learnt"};
  std::size_t sets = 0;
  const auto rows = mean_errors(group, target);
  for (const auto& [row, errors] : rows) sets = std::max(sets, errors.size());
  for (std::size_t j = 1; j <= sets; ++j) {
    table.columns.push_back(cat({"test ", std::to_string(j)}));
  }
  for (const auto& [row, errors] : rows) {
    std::vector<std::string> cells = {std::to_string(row)};
    for (std::size_t j = 0; j < sets; ++j) {
      cells.push_back(j < errors.size() ? error_text(errors[j]) : "-");
    }
    table.rows.push_back(std::move(cells));
  }
  return table_figure(table);
}

}  // namespace

std::string error_tables(const std::vector<Group>& groups) {
  std::string tables;
  for (const Group& group : groups) {
    std::set<std::string> known;
    for (const RunFolder* run : group.runs) {
      for (const TargetErrors& errors : run->errors) {
        if (!known.insert(errors.target).second) continue;
        tables += error_table(group, errors.target, groups.size() > 1);
      }
    }
  }
  return tables;
}

}  // namespace perennial::continual::report
