// SPDX-License-Identifier: Apache-2.0
// What commands print: tables, sizes, durations, and the JSON result.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace perennial::cli {

// Where a command's words go. With --json standard output carries the result alone, and text goes
// to standard error, or with --quiet as well nowhere. --quiet alone silences progress only.
class Output {
 public:
  Output(bool json, bool quiet) : json_(json), quiet_(quiet) {}

  bool json() const { return json_; }
  // For people: standard output, standard error with --json, nowhere with --json --quiet.
  std::ostream& text() const;
  // The result: with --json one line on standard output. Call once, last. Throws Error when
  // standard output cannot take it (a full disk, a closed pipe).
  void finish(const boost::json::object& result) const;

 private:
  bool json_;
  bool quiet_;
};

enum class Align { left, right };

// Columns as wide as their widest cell. A left-aligned last column is not padded.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::right;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as columns.
  void add_row(std::vector<std::string> cells);
  void print(std::ostream& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "0 B", "980 B", "1.4 MiB"
std::string format_bytes(std::uint64_t bytes);
// "350 ms", "12.3 s", "4 min 05 s", "2 h 03 min", "3 d 4 h"
std::string format_duration(double seconds);
// "1,048,576"
std::string format_count(std::int64_t count);
// "1 commit", "1,024 commits"
std::string format_number_of(std::uint64_t count, std::string_view thing);
// Local time, "2026-03-01 12:34:56".
std::string format_time(std::int64_t unix_ms);
// A field a line, two spaces deeper in each object; arrays of plain values on one line.
void print_json(std::ostream& out, const boost::json::value& value, std::size_t indent = 0);
// `text` in lines of at most `columns`, broken at spaces where there are any.
std::vector<std::string> wrap(std::string_view text, std::size_t columns);
// `text` on one line: control characters become spaces, and what is beyond `columns` becomes "...".
std::string one_line(std::string_view text, std::size_t columns);

}  // namespace perennial::cli
