// SPDX-License-Identifier: Apache-2.0
// Results of strategies over seeds as Markdown and CSV.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <utility>
#include <vector>

namespace perennial::continual {

// What one strategy scored: each metric's value of every seed that has one. Metrics keep their
// order. A name may be any UTF-8 text.
struct ResultRow {
  std::string strategy;
  std::vector<std::pair<std::string, std::vector<double>>> metrics;

  // The metrics of summary.json's top level that are numbers are added, one value each.
  void add_run(const boost::json::object& metrics);
  // The values of a metric; empty when there is none.
  const std::vector<double>* find(const std::string& metric) const;
};

// A table of texts under a title. The first column is names, the others are mostly numbers.
struct TextTable {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> notes = {};  // a paragraph each, below the table
};
// The columns and rows in Markdown (GitHub's), without title and notes. What Markdown or HTML would
// take for markup is escaped.
std::string markdown_table(const TextTable& table);

// A Markdown table: a line a strategy with "mean ± sd" of each of `metrics`, and the
// number of seeds; "-" where a strategy has no value.
std::string markdown_table(const std::vector<ResultRow>& rows,
                           const std::vector<std::string>& metrics);

// CSV (RFC 4180, with a header, lines end in \n):
// strategy,metric,mean,sd,sem,t95,seeds - all metrics of all rows, numbers with 17 digits, empty
// where one seed has no spread.
std::string csv_table(const std::vector<ResultRow>& rows);

}  // namespace perennial::continual
