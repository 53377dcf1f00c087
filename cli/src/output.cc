// SPDX-License-Identifier: Apache-2.0
// Printing for people and for programs.
#include "output.h"

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <limits>

#include "perennial/core/error.h"
#include "perennial/core/options.h"
#include "perennial/core/text.h"

namespace perennial::cli {
namespace {

constexpr std::string_view kColumnGap = "  ";

template <class... Args>
std::string print_to_string(const char* format, Args... args) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), format, args...);
  return text.data();
}

}  // namespace

std::ostream& Output::text() const {
  static std::ostream nowhere(nullptr);
  if (!json_) return std::cout;
  return quiet_ ? nowhere : std::cerr;
}

void Output::finish(const boost::json::object& result) const {
  // Paths may be any bytes.
  if (json_) std::cout << valid_utf8(boost::json::serialize(result)) << '\n';
  if (!std::cout.flush()) throw Error("standard output cannot be written");
}

void Table::add_row(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

void Table::print(std::ostream& out) const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = columns_[c].title.size();
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  const auto print_row = [&](const auto& cell_of) {
    std::string line;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const std::string& cell = cell_of(c);
      const std::string padding(widths[c] - cell.size(), ' ');
      if (c > 0) line += kColumnGap;
      line += columns_[c].align == Align::left ? cell + padding : padding + cell;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << '\n';
  };
  print_row([&](std::size_t c) -> const std::string& { return columns_[c].title; });
  for (const auto& row : rows_) {
    print_row([&](std::size_t c) -> const std::string& { return row[c]; });
  }
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  // 1023.95 and more would print as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return print_to_string("%.1f %s", value, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 0.9995) return print_to_string("%.0f ms", seconds * 1000);
  if (seconds < 59.95) return print_to_string("%.1f s", seconds);
  const auto whole = static_cast<long>(std::lround(seconds));
  if (whole < 3600) return print_to_string("%ld min %02ld s", whole / 60, whole % 60);
  if (whole < 86400) return print_to_string("%ld h %02ld min", whole / 3600, whole / 60 % 60);
  return print_to_string("%ld d %ld h", whole / 86400, whole / 3600 % 24);
}

std::string format_count(std::int64_t count) {
  std::string digits = std::to_string(count);
  const std::ptrdiff_t first = digits[0] == '-' ? 1 : 0;
  for (std::ptrdiff_t at = std::ssize(digits) - 3; at > first; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

std::string format_number_of(std::uint64_t count, std::string_view thing) {
  return format_count(static_cast<std::int64_t>(count)) + ' ' + std::string(thing) +
         (count == 1 ? "" : "s");
}

std::string format_time(std::int64_t unix_ms) {
  const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm local{};
  std::array<char, 32> text{};
  if (localtime_r(&seconds, &local) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local) == 0) {
    return "?";
  }
  return text.data();
}

void print_json(std::ostream& out, const boost::json::value& value, std::size_t indent) {
  const auto line = [&](std::size_t depth) -> std::ostream& {
    return out << '\n' << std::string(2 * depth, ' ');
  };
  if (value.is_object() && !value.get_object().empty()) {
    out << '{';
    const char* separator = "";
    for (const auto& field : value.get_object()) {
      out << separator;
      line(indent + 1) << boost::json::serialize(field.key()) << ": ";
      print_json(out, field.value(), indent + 1);
      separator = ",";
    }
    line(indent) << '}';
  } else if (value.is_array() && !value.get_array().empty() && value.get_array()[0].is_object()) {
    out << '[';
    const char* separator = "";
    for (const boost::json::value& element : value.get_array()) {
      out << separator;
      line(indent + 1);
      print_json(out, element, indent + 1);
      separator = ",";
    }
    line(indent) << ']';
  } else if (value.is_double()) {
    out << options_detail::short_number(value.get_double());
  } else {
    out << boost::json::serialize(value);
  }
}

std::vector<std::string> wrap(std::string_view text, std::size_t columns) {
  std::vector<std::string> lines;
  while (text.size() > columns) {
    std::size_t cut = text.rfind(' ', columns);
    if (cut == std::string_view::npos || cut == 0) cut = columns;
    lines.emplace_back(text.substr(0, cut));
    text.remove_prefix(cut);
    while (text.starts_with(' ')) text.remove_prefix(1);
  }
  if (!text.empty() || lines.empty()) lines.emplace_back(text);
  return lines;
}

std::string one_line(std::string_view text, std::size_t columns) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7F') c = ' ';
  }
  if (line.size() > columns) {
    line.resize(columns > 3 ? columns - 3 : 0);
    line += "...";
  }
  return line;
}

}  // namespace perennial::cli
