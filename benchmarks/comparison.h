// SPDX-License-Identifier: Apache-2.0
// Timing of ours beside a baseline in one run: the shape every benchmark of this folder has.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace perennial::bench {

// The command line of a benchmark program.
struct Arguments {
  bool smoke = false;             // --smoke: smallest sizes, one instant, numbers mean nothing
  std::string json;               // --json FILE: where to write the rows; empty: nowhere
  std::vector<std::string> rest;  // the program's name, then what Google Benchmark takes
  std::map<std::string, std::string> own;  // the flags of this program that were given
};
// A flag that only one program takes: "--dir", "FOLDER".
struct OwnFlag {
  std::string name;
  std::string value;
};
// Prints usage and exits (0 or 2) on --help and on a flag without its value. A program with flags
// of its own measures by hand and takes none of Google Benchmark's.
Arguments parse_arguments(int argc, char** argv, const std::vector<OwnFlag>& own = {});

// One row: the same work done by `ours` and by `baseline`.
struct Comparison {
  std::string name;
  std::string unit;  // of the rates, for example "GFLOP/s"
  double work = 0;   // of one call, in the unit times a second
  std::function<void()> ours;
  std::function<void()> baseline;
  std::optional<double> target;   // least ratio ours / baseline; none: informative
  std::function<void()> ceiling;  // what the machine can do, measured in the same run; may be empty
  double ceiling_work = 0;
};

// Times everything (5 repetitions in random order, medians), prints a table, and writes
//   {"machine": {...}, "rows":
//    [{"name", "ours", "baseline", "unit", "ratio", "target", "ceiling"}, ...]}
// to the JSON file (machine: see machine.h); absent targets and ceilings are null. Returns the exit
// code of main: 0, or 1 when the file could not be written.
int run_comparisons(const Arguments& arguments, const std::vector<Comparison>& comparisons);

// What the repetitions of one side came to.
struct Sample {
  double median = 0;
  double low = 0;
  double high = 0;
};
Sample summarize(std::vector<double> values);

// One row that was measured by hand. `ratio` is oriented so that ratio >= target is good: a limit
// "ours <= c baseline" is the ratio c baseline / ours with target 1.
struct Row {
  std::string name;
  std::string unit;
  Sample ours;
  Sample baseline;
  double ratio = 0;
  std::optional<double> target = {};   // none: informative
  std::optional<double> ceiling = {};  // what the machine can do, in the unit
};
// Prints the rows as one Markdown table and writes them to the JSON file as run_comparisons does,
// with the ranges of the repetitions ("ours_range", "baseline_range": [low, high]).
int report_rows(const Arguments& arguments, const boost::json::object& machine,
                const std::vector<Row>& rows);

}  // namespace perennial::bench
