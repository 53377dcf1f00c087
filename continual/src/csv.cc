// SPDX-License-Identifier: Apache-2.0
// Comma-separated cells (RFC 4180, but a quoted cell ends on its line).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <deque>

#include "table.h"

namespace perennial::continual {
namespace {

constexpr std::size_t kShownCellBytes = 24;
constexpr std::array<std::string_view, 9> kNoValue = {"",     "NA",   "N/A",  "NaN", "nan",
                                                      "null", "NULL", "None", "?"};

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

class CsvCutter : public LineCutter {
 public:
  bool cut(std::string_view line, std::vector<Cell>& cells, std::vector<std::string>&,
           std::string& problem) override {
    unquoted_.clear();
    cells.clear();
    while (true) {
      line = trim(line);
      if (line.starts_with('"')) {
        if (!quoted(line, cells, problem)) return false;
      } else {
        const std::size_t comma = std::min(line.find(','), line.size());
        cells.push_back(cell_of(line.substr(0, comma)));
        line.remove_prefix(comma);
      }
      if (line.empty()) return true;
      line.remove_prefix(1);  // the comma
    }
  }

 private:
  // Takes a quoted cell and what follows it up to the next comma, which must be blank.
  bool quoted(std::string_view& line, std::vector<Cell>& cells, std::string& problem) {
    std::string text;
    line.remove_prefix(1);
    while (true) {
      const std::size_t quote = line.find('"');
      if (quote == std::string_view::npos) {
        problem = "a quoted cell does not end on its line";
        return false;
      }
      text += line.substr(0, quote);
      line.remove_prefix(quote + 1);
      if (!line.starts_with('"')) break;
      text += '"';
      line.remove_prefix(1);
    }
    line = trim(line);
    if (!line.empty() && line.front() != ',') {
      problem = "a comma was expected after the quoted cell " + shown(text);
      return false;
    }
    unquoted_.push_back(std::move(text));
    cells.push_back(cell_of(unquoted_.back()));
    return true;
  }

  std::deque<std::string> unquoted_;  // keeps the texts that cells refer to in place
};

}  // namespace

Cell cell_of(std::string_view text) {
  Cell cell;
  cell.text = trim(text);
  if (std::find(kNoValue.begin(), kNoValue.end(), cell.text) != kNoValue.end()) return cell;
  cell.kind = Cell::Kind::text;
  std::string_view digits = cell.text;
  if (digits.front() == '+') digits.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size()) return cell;
  cell.number = static_cast<float>(value);
  if (std::isfinite(cell.number)) cell.kind = Cell::Kind::number;
  return cell;
}

std::string shown(std::string_view text) {
  text = trim(text);
  std::string visible = "'";
  for (const char c : text.substr(0, kShownCellBytes)) visible += c >= ' ' && c <= '~' ? c : '?';
  if (text.size() > kShownCellBytes) visible += "...";
  return visible + "'";
}

std::unique_ptr<LineCutter> make_csv_cutter() { return std::make_unique<CsvCutter>(); }

}  // namespace perennial::continual
