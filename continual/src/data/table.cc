// SPDX-License-Identifier: Apache-2.0
// Rows of a table.
#include "data/table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "perennial/core/error.h"
#include "perennial/core/text.h"

namespace perennial::continual {
namespace {

constexpr std::uint64_t kNamedBadRows = 5;

bool blank(std::string_view record) { return record.find_first_not_of(" \t\r") == record.npos; }

// The character that a choice is; empty when the first record decides.
std::optional<char> character_of(Separator separator) {
  switch (separator) {
    case Separator::semicolon:
      return ';';
    case Separator::comma:
      return ',';
    case Separator::tab:
      return '\t';
    case Separator::pipe:
      return '|';
    case Separator::automatic:
      break;
  }
  return std::nullopt;
}

// Where `name` is in `names`; -1 when it is not there.
std::int64_t place_of(const std::string& name, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? -1 : found - names.begin();
}

}  // namespace

TableFormat table_format(const std::filesystem::path& file, std::string_view start) {
  std::string name = file.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  if (name.ends_with(".jsonl") || name.ends_with(".ndjson")) return TableFormat::jsonl;
  if (name.ends_with(".csv")) return TableFormat::csv;
  const std::size_t first = start.find_first_not_of(" \t\r\n");
  return first != start.npos && start[first] == '{' ? TableFormat::jsonl : TableFormat::csv;
}

TableParser::TableParser(TableFormat format, TableOptions options, bool with_label,
                         std::vector<std::string> features)
    : format_(format),
      options_(std::move(options)),
      with_label_(with_label),
      wanted_(std::move(features)) {
  if (format == TableFormat::jsonl) cutter_ = make_jsonl_cutter();
  forget_columns();
}

void TableParser::forget_columns() {
  columns_ = {};
  width_line_ = 0;
  separator_known_ = format_ == TableFormat::jsonl;
  const std::optional<char> chosen = character_of(options_.separator);
  if (!separator_known_ && chosen) set_separator(*chosen);
}

void TableParser::set_separator(char separator) {
  columns_.separator = separator;
  separator_known_ = true;
  if (format_ == TableFormat::csv) cutter_ = make_csv_cutter(separator);
}

void TableParser::resume(const std::vector<std::string>& names, bool named, char separator,
                         std::uint64_t lines) {
  line_ = lines_ = lines;
  if (names.empty()) return;
  set_separator(separator);
  settle(names, named);
}

void TableParser::take_back() {
  if (line_ == width_line_) forget_columns();
  lines_ = line_ - 1;
}

std::optional<std::string_view> TableParser::next(std::string_view text, bool all) const {
  const std::string_view separators =
      separator_known_ ? std::string_view(&columns_.separator, 1) : kSeparators;
  const std::size_t end =
      format_ == TableFormat::csv ? csv_record_end(text, separators, all) : text.find('\n');
  if (end == text.npos && !all) return std::nullopt;
  return text.substr(0, end);
}

std::vector<std::string> TableParser::feature_names() const {
  std::vector<std::string> names;
  if (!columns_.named) return names;
  for (const std::int64_t column : columns_.features) {
    names.push_back(columns_.names[static_cast<std::size_t>(column)]);
  }
  return names;
}

std::vector<std::string> TableParser::target_names() const {
  std::vector<std::string> names;
  for (const std::int64_t column : columns_.targets) {
    const std::string& name = columns_.names[static_cast<std::size_t>(column)];
    names.push_back(columns_.named ? name : "column " + name);
  }
  return names;
}

TableParser::Outcome TableParser::bad(std::string problem) {
  problem_ = std::move(problem);
  return Outcome::bad;
}

std::string TableParser::place(std::size_t column) const {
  std::string text = "line " + std::to_string(line_) + ", column " + std::to_string(column + 1);
  if (columns_.named) text += " (" + shown(columns_.names[column]) + ")";
  return text + ": ";
}

// What may be amiss when all is one column.
std::string TableParser::hint_of_one() const {
  return format_ == TableFormat::csv && columns_.names.size() == 1
             ? "; if something else than " + shown({&columns_.separator, 1}) +
                   " stands between cells, say so (separator)"
             : "";
}

void TableParser::settle_label() {
  const std::string& asked = options_.label_column;
  const std::vector<std::string>& names = columns_.names;
  columns_.label = place_of(asked.empty() ? "label" : asked, names);
  if (columns_.label >= 0) return;
  const std::string line = "line " + std::to_string(line_);
  if (asked.empty()) {
    if (format_ == TableFormat::jsonl) {
      throw DataError(line + " has no field 'label'; say which one is with label_column");
    }
    columns_.label = std::ssize(names) - 1;
    return;
  }
  columns_.label = column_asked(asked);
}

// The column of this name or number.
std::int64_t TableParser::column_asked(const std::string& asked) const {
  const std::vector<std::string>& names = columns_.names;
  if (const std::int64_t place = place_of(asked, names); place >= 0) return place;
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), number);
  if (error != std::errc{} || end != asked.data() + asked.size() || number < 1 ||
      number > std::ssize(names)) {
    throw DataError("line " + std::to_string(line_) + ": there is no column " + shown(asked) +
                    " among " + std::to_string(names.size()) +
                    (columns_.named ? "" : ", which have no names (see header)") + hint_of_one());
  }
  return number - 1;
}

// A name may have commas of its own.
void TableParser::settle_targets() {
  const std::string& asked = options_.target_column;
  if (asked.empty()) {
    throw DataError("line " + std::to_string(line_) + ": a table has " +
                    std::to_string(columns_.names.size()) +
                    " columns; say which of them a regression is of, with target_column");
  }
  if (const std::int64_t place = place_of(asked, columns_.names); place >= 0) {
    columns_.targets = {place};
    return;
  }
  for (std::size_t begin = 0; begin <= asked.size();) {
    const std::size_t end = std::min(asked.find(',', begin), asked.size());
    const std::int64_t column = column_asked(asked.substr(begin, end - begin));
    if (std::find(columns_.targets.begin(), columns_.targets.end(), column) !=
        columns_.targets.end()) {
      throw DataError("target_column names column " +
                      shown(columns_.names[static_cast<std::size_t>(column)]) + " twice");
    }
    columns_.targets.push_back(column);
    begin = end + 1;
  }
}

// Decides what each column is.
void TableParser::settle(std::vector<std::string> names, bool named) {
  columns_.names = std::move(names);
  columns_.named = named;
  width_line_ = line_;
  if (std::set<std::string>(columns_.names.begin(), columns_.names.end()).size() !=
      columns_.names.size()) {
    throw DataError("line " + std::to_string(line_) + " names a column twice");
  }
  if (with_label_) {
    if (options_.task == TaskKind::regression) {
      settle_targets();
    } else {
      settle_label();
    }
  }
  if (!wanted_.empty() && named) {
    for (const std::string& name : wanted_) {
      const std::int64_t column = place_of(name, columns_.names);
      if (column < 0) {
        throw DataError("line " + std::to_string(line_) + " has no column " + shown(name) +
                        ", which the model learnt from");
      }
      columns_.features.push_back(column);
    }
  } else {
    const std::vector<std::int64_t>& targets = columns_.targets;
    for (std::int64_t c = 0; c < std::ssize(columns_.names); ++c) {
      if (c == columns_.label || std::find(targets.begin(), targets.end(), c) != targets.end()) {
        continue;
      }
      columns_.features.push_back(c);
    }
  }
  if (columns_.features.empty()) {
    throw DataError("line " + std::to_string(line_) + " has no column beside the " +
                    (columns_.targets.empty() ? "label" : "targets") + hint_of_one());
  }
}

// Puts the cells of a line that names its fields into the columns' order. False for a foreign one.
bool TableParser::match(std::vector<std::string>& names) {
  if (names == columns_.names) return true;
  std::vector<Cell> ordered(columns_.names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::int64_t column = place_of(names[i], columns_.names);
    if (column < 0) {
      bad("line " + std::to_string(line_) + " has the field " + shown(names[i]) + ", which line " +
          std::to_string(width_line_) + " does not have");
      return false;
    }
    ordered[static_cast<std::size_t>(column)] = cells_[i];
  }
  cells_ = std::move(ordered);
  return true;
}

// What is wrong at byte `at` of a record. Without its columns the table itself cannot work.
TableParser::Outcome TableParser::refuse_text(std::string_view record, std::size_t at) {
  std::string message = "line " + std::to_string(line_);
  if (format_ == TableFormat::csv) {
    std::vector<std::string> names;
    std::string problem;
    // A cut within quotes leaves its cell out.
    const bool whole = cutter_->cut(record.substr(0, at), cells_, names, problem);
    message += ", column " + std::to_string(cells_.size() + (whole ? 0 : 1));
  }
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(record[at]);
  message += std::string(": byte 0x") + kDigits[byte >> 4] + kDigits[byte & 15] +
             " is no UTF-8; say which encoding the file has (encoding, as latin1)";
  if (!has_columns()) throw DataError(message);
  return bad(std::move(message));
}

TableParser::Outcome TableParser::take(std::string_view record) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  line_ = lines_ + 1;
  lines_ = line_ + static_cast<std::uint64_t>(std::count(record.begin(), record.end(), '\n'));
  if (line_ == 1 && record.starts_with(kByteOrderMark)) record.remove_prefix(kByteOrderMark.size());
  if (blank(record)) return Outcome::nothing;
  if (!separator_known_) set_separator(separator_in(record));
  if (const std::size_t at = invalid_utf8(record); at != record.npos) {
    return refuse_text(record, at);
  }
  std::vector<std::string> names;
  std::string problem;
  if (!cutter_->cut(record, cells_, names, problem)) {
    return bad("line " + std::to_string(line_) + ": " + problem);
  }
  if (format_ == TableFormat::jsonl) {
    if (!has_columns()) settle(names, true);
    if (!match(names)) return Outcome::bad;
  } else if (!has_columns()) {
    const bool numbers = std::any_of(cells_.begin(), cells_.end(), [](const Cell& cell) {
      return cell.kind == Cell::Kind::number;
    });
    const bool header = options_.header == HeaderChoice::yes ||
                        (options_.header == HeaderChoice::automatic && !numbers);
    for (std::size_t c = 0; c < cells_.size(); ++c) {
      names.push_back(header ? std::string(cells_[c].text) : std::to_string(c + 1));
    }
    settle(std::move(names), header);
    if (header) return Outcome::nothing;
  } else if (cells_.size() != columns_.names.size()) {
    return bad("line " + std::to_string(line_) + " has " + std::to_string(cells_.size()) +
               " cells, line " + std::to_string(width_line_) + " has " +
               std::to_string(columns_.names.size()));
  }
  features_.clear();
  for (const std::int64_t column : columns_.features) {
    const auto c = static_cast<std::size_t>(column);
    const Cell& cell = cells_[c];
    if (cell.kind == Cell::Kind::text) return bad(place(c) + shown(cell.text) + " is not a number");
    if (cell.kind == Cell::Kind::missing && options_.missing_values == MissingValues::bad) {
      return bad(place(c) + shown(cell.text) + " is no value");
    }
    features_.push_back(cell.kind == Cell::Kind::number ? cell.number
                                                        : std::numeric_limits<double>::quiet_NaN());
  }
  if (columns_.label >= 0) {
    const auto c = static_cast<std::size_t>(columns_.label);
    if (cells_[c].kind == Cell::Kind::missing) return bad(place(c) + "no label");
    label_ = cells_[c].text;
  }
  targets_.clear();
  for (const std::int64_t column : columns_.targets) {
    const auto c = static_cast<std::size_t>(column);
    if (cells_[c].kind == Cell::Kind::missing) return bad(place(c) + "no target");
    if (cells_[c].kind == Cell::Kind::text) {
      return bad(place(c) + shown(cells_[c].text) + " is not a number");
    }
    targets_.push_back(cells_[c].number);
  }
  return Outcome::row;
}

void BadRowLog::add(const std::string& problem) {
  if (rule_ == BadRows::refuse) throw DataError(file_.string() + ": " + problem);
  if (++count_ <= kNamedBadRows) first_ += (first_.empty() ? "" : "; ") + problem;
}

std::string BadRowLog::summary(std::uint64_t good) const {
  if (count_ == 0) return "";
  std::string text = file_.string() + ": " + std::to_string(count_) + " of " +
                     std::to_string(good + count_) + ' ' + rows_ + " skipped: " + first_;
  if (count_ > kNamedBadRows) text += "; and " + std::to_string(count_ - kNamedBadRows) + " more";
  return text;
}

}  // namespace perennial::continual
