// SPDX-License-Identifier: Apache-2.0
// Cells of CSV (RFC 4180, with any of kSeparators).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <deque>
#include <utility>

#include "data/table.h"

namespace perennial::continual {
namespace {

constexpr std::size_t kShownCellBytes = 24;
// A quote that is never closed must not hold up a table that grows.
constexpr std::size_t kLongestQuoted = 64 << 10;
constexpr std::string_view kBlanks = " \t\r";
constexpr std::array<std::string_view, 9> kNoValue = {"",     "NA",   "N/A",  "NaN", "nan",
                                                      "null", "NULL", "None", "?"};

std::string_view trim(std::string_view text, std::string_view blanks = " \t\r\n") {
  const std::size_t first = std::min(text.find_first_not_of(blanks), text.size());
  text.remove_prefix(first);
  return text.substr(0, text.find_last_not_of(blanks) + 1);
}

// What may surround a cell: a tab does not where it may separate.
std::string_view blanks_beside(std::string_view separators) {
  return separators.find('\t') == separators.npos ? kBlanks : " \r";
}

class CsvCutter : public RecordCutter {
 public:
  explicit CsvCutter(char separator) : separator_(separator) {}

  bool cut(std::string_view rest, std::vector<Cell>& cells, std::vector<std::string>&,
           std::string& problem) override {
    unquoted_.clear();
    cells.clear();
    while (true) {
      rest = trim(rest, blanks_);
      if (rest.starts_with('"')) {
        if (!quoted(rest, cells, problem)) return false;
      } else {
        const std::size_t end = std::min(rest.find(separator_), rest.size());
        cells.push_back(cell_of(rest.substr(0, end)));
        rest.remove_prefix(end);
      }
      if (rest.empty()) return true;
      rest.remove_prefix(1);  // the separator
    }
  }

 private:
  // Takes a quoted cell and what follows it up to the next separator, which must be blank.
  bool quoted(std::string_view& rest, std::vector<Cell>& cells, std::string& problem) {
    std::string text;
    rest.remove_prefix(1);
    while (true) {
      const std::size_t quote = rest.find('"');
      if (quote == std::string_view::npos) {
        problem = "a quoted cell does not end";
        return false;
      }
      text += rest.substr(0, quote);
      rest.remove_prefix(quote + 1);
      if (!rest.starts_with('"')) break;
      text += '"';
      rest.remove_prefix(1);
    }
    rest = trim(rest, blanks_);
    if (!rest.empty() && rest.front() != separator_) {
      problem = "a separator (" + shown({&separator_, 1}) +
                ") was expected after the quoted cell " + shown(text);
      return false;
    }
    unquoted_.push_back(std::move(text));
    cells.push_back(cell_of(unquoted_.back()));
    return true;
  }

  char separator_;
  std::string_view blanks_ = blanks_beside({&separator_, 1});
  std::deque<std::string> unquoted_;  // keeps the texts that cells refer to in place
};

}  // namespace

char separator_in(std::string_view record) {
  std::array<std::int64_t, kSeparators.size()> counts{};
  bool in_quotes = false;
  for (const char c : record) {
    if (c == '"') in_quotes = !in_quotes;
    const std::size_t which = kSeparators.find(c);
    if (!in_quotes && which != kSeparators.npos) ++counts[which];
  }
  const auto most = std::max_element(counts.begin(), counts.end());
  return *most == 0 ? ',' : kSeparators[static_cast<std::size_t>(most - counts.begin())];
}

std::size_t csv_record_end(std::string_view text, std::string_view separators, bool all) {
  constexpr std::size_t kNone = std::string_view::npos;
  const std::size_t line_end = text.find('\n');
  if (text.substr(0, line_end).find('"') == kNone) return line_end;
  const std::string_view blanks = blanks_beside(separators);
  const std::string ends = std::string(separators) + '\n';
  for (std::size_t at = 0;; ++at) {  // at the start of a cell
    at = std::min(text.find_first_not_of(blanks, at), text.size());
    if (at < text.size() && text[at] == '"') {
      const std::size_t begin = at;
      do {
        at = text.find('"', at + 1);
        if (std::min(at, text.size()) - begin > kLongestQuoted) return line_end;
        if (at == kNone) return all ? line_end : kNone;
        ++at;
      } while (at < text.size() && text[at] == '"');  // a quote within it is written twice
      at = std::min(text.find_first_not_of(blanks, at), text.size());
      if (at < text.size() && ends.find(text[at]) == kNone) return line_end;
    } else {
      at = std::min(text.find_first_of(ends, at), text.size());
    }
    if (at == text.size()) return kNone;
    if (text[at] == '\n') return at;
  }
}

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
  cell.number = value;
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

std::unique_ptr<RecordCutter> make_csv_cutter(char separator) {
  return std::make_unique<CsvCutter>(separator);
}

}  // namespace perennial::continual
