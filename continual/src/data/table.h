// SPDX-License-Identifier: Apache-2.0
// Records of a table turned into rows: cells, columns, label or targets among them, and what is
// wrong.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/table_options.h"

namespace perennial::continual {

enum class TableFormat : std::uint8_t { csv, jsonl };

// The format that a file's name or else its first bytes say.
TableFormat table_format(const std::filesystem::path& file, std::string_view start);

struct Cell {
  enum class Kind : std::uint8_t { number, missing, text };
  Kind kind = Kind::missing;
  double number = 0;
  std::string_view text;  // as it stands, without quotes; valid until the next record
};

// Cuts records into cells. Single-threaded.
class RecordCutter {
 public:
  virtual ~RecordCutter() = default;
  // False when the record is malformed; `problem` says how, and `cells` are those before it.
  // `names` are the columns' names where the format has them in every record, else it is left
  // alone.
  virtual bool cut(std::string_view record, std::vector<Cell>& cells,
                   std::vector<std::string>& names, std::string& problem) = 0;
};
std::unique_ptr<RecordCutter> make_csv_cutter(char separator);
std::unique_ptr<RecordCutter> make_jsonl_cutter();

// What may stand between the cells of CSV.
inline constexpr std::string_view kSeparators = ";,\t|";

// The one of kSeparators that a CSV file's first record has most of outside quotes, of equally many
// the first; a comma when it has none.
char separator_in(std::string_view record);

// Where the CSV record that `text` begins with ends: the place of its newline, npos when that is
// not there (yet, unless nothing comes after `text`: `all`). Cells in quotes may hold newlines. A
// record whose quotes do not work out (something other than one of `separators` follows, or a cell
// does not end within 64 KiB) is its first line alone, so that a stray quote takes no other rows
// with it.
std::size_t csv_record_end(std::string_view text, std::string_view separators, bool all);

// What a text is as a cell: a finite 64-bit number, one of the words for no value, or text.
Cell cell_of(std::string_view text);
// A cell's text for a message: at most 24 printable characters in quotes.
std::string shown(std::string_view text);

// Which columns a table has, and which of them is what.
struct TableColumns {
  std::vector<std::string> names;  // "1", "2", ... when the table has no names
  bool named = false;
  char separator = ',';                // of CSV
  std::int64_t label = -1;             // -1 = none
  std::vector<std::int64_t> targets;   // of a regression
  std::vector<std::int64_t> features;  // the columns of the features, in the model's order
};

// Takes a table's records, text in UTF-8, from its first one on. Single-threaded.
class TableParser {
 public:
  // `features`: names that the table must have, in the model's order; empty = every column but the
  // label or the targets. Without `with_label` neither is looked for.
  TableParser(TableFormat format, TableOptions options, bool with_label,
              std::vector<std::string> features = {});

  // The record that `text`, what is left of the table, begins with, without the newline that ends
  // it. Empty when its end is not there yet; with `all`, nothing comes after `text`.
  std::optional<std::string_view> next(std::string_view text, bool all) const;

  enum class Outcome : std::uint8_t { row, nothing, bad };
  // A row, nothing (a blank line, the header), or a bad row. Throws DataError with a message that
  // begins "line N" when the table itself cannot work.
  Outcome take(std::string_view record);

  // Of the last row.
  const std::vector<double>& features() const { return features_; }
  const std::string& label() const { return label_; }
  const std::vector<double>& targets() const { return targets_; }
  // Of the last bad one: "line 3, column 2 ('age'): 'x' is not a number".
  const std::string& problem() const { return problem_; }

  // Of the last record: the line that it begins on.
  std::uint64_t line() const { return line_; }
  // All so far, also those within records.
  std::uint64_t lines() const { return lines_; }
  const TableColumns& columns() const { return columns_; }
  bool has_columns() const { return !columns_.names.empty(); }
  // Names of the features, where the table has names.
  std::vector<std::string> feature_names() const;
  // Names of the targets: "column 3" where the table has none.
  std::vector<std::string> target_names() const;
  // Goes on after so many lines of a table with these columns; without names, of one whose columns
  // are not known yet. Throws DataError as take() does.
  void resume(const std::vector<std::string>& names, bool named, char separator,
              std::uint64_t lines);
  // Undoes that the last record was taken, where take() threw or its row was refused.
  void take_back();

 private:
  Outcome bad(std::string problem);
  void forget_columns();
  void set_separator(char separator);
  Outcome refuse_text(std::string_view record, std::size_t at);
  std::string place(std::size_t column) const;
  void settle(std::vector<std::string> names, bool named);
  void settle_label();
  void settle_targets();
  std::int64_t column_asked(const std::string& asked) const;
  std::string hint_of_one() const;
  bool match(std::vector<std::string>& names);

  TableFormat format_;
  TableOptions options_;
  bool with_label_;
  std::vector<std::string> wanted_;
  std::unique_ptr<RecordCutter> cutter_;
  TableColumns columns_;
  bool separator_known_ = false;
  std::uint64_t line_ = 0, lines_ = 0;
  std::uint64_t width_line_ = 0;  // where the columns were settled
  std::vector<Cell> cells_;
  std::vector<double> features_, targets_;
  std::string label_, problem_;
};

// Bad rows: refused, or counted and the first ones named.
class BadRowLog {
 public:
  // `rows`: what its summary calls them.
  BadRowLog(std::filesystem::path file, BadRows rule, std::string rows = "rows")
      : file_(std::move(file)), rule_(rule), rows_(std::move(rows)) {}
  // Throws DataError "FILE: problem" when bad rows are refused.
  void add(const std::string& problem);
  std::uint64_t count() const { return count_; }
  // "FILE: 3 of 120 rows skipped: line 5, ...; and 1 more"; empty when there were none.
  std::string summary(std::uint64_t good) const;

 private:
  std::filesystem::path file_;
  BadRows rule_;
  std::string rows_;
  std::uint64_t count_ = 0;
  std::string first_;
};

}  // namespace perennial::continual
