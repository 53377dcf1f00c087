// SPDX-License-Identifier: Apache-2.0
// How tables (CSV, JSONL) are read: the same rules for training, prediction and files that grow.
#pragma once

#include <cstdint>
#include <string>

#include "perennial/continual/task_kind.h"
#include "perennial/core/options.h"

namespace perennial::continual {

// What to do with a row that cannot be used.
enum class BadRows : std::uint8_t { refuse, skip };
EnumNames<BadRows> enum_names(BadRows);

// What a feature without a value is. A row without a label or a target is always a bad row.
enum class MissingValues : std::uint8_t { bad, mean };
EnumNames<MissingValues> enum_names(MissingValues);

// Whether the first line of a CSV file names its columns.
enum class HeaderChoice : std::uint8_t { automatic, yes, no };
EnumNames<HeaderChoice> enum_names(HeaderChoice);

// What stands between the cells of a CSV file. automatic: of those of the first line, outside
// quotes, the most frequent one; of equally many the first as they stand here.
enum class Separator : std::uint8_t { automatic, semicolon, comma, tab, pipe };
EnumNames<Separator> enum_names(Separator);

// A row is bad when it has another number of cells than the first one, a feature that is no finite
// number, no label, a target that is no finite number, text that is not of the encoding, or (with
// missing_values bad) no value for a feature. A cell has no value when it is empty or one of NA,
// N/A, NaN, null, None and ? (JSONL: null, or the field is not there).
struct TableOptions {
  TaskKind task = TaskKind::classification;
  std::string target_column = {};
  std::string label_column = {};
  HeaderChoice header = HeaderChoice::automatic;
  Separator separator = Separator::automatic;
  std::string encoding = "utf-8";
  BadRows bad_rows = BadRows::refuse;
  MissingValues missing_values = MissingValues::bad;
  double test_share = 0.2;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("task", self.task,
            "what is learnt of the data: classification (labels) or regression (numbers)");
    visitor("target_column", self.target_column,
            "regression of tables: the column or field that holds the target, by its name or its "
            "number from 1, or several with commas between");
    visitor("label_column", self.label_column,
            "tables: the column or field that holds the label, by its name or its number from 1; "
            "empty = the one called label, else the last column of CSV");
    visitor("header", self.header,
            "CSV: whether the first line names the columns; automatic: it does when none of its "
            "cells is a number");
    visitor("separator", self.separator,
            "CSV: what stands between cells; automatic: what the first line has most of");
    visitor(
        "encoding", self.encoding,
        "tables: the encoding of their text, as utf-8, latin1, windows-1252 or utf-16; any that "
        "`iconv -l` lists");
    visitor("bad_rows", self.bad_rows,
            "tables and image files: refuse data with a row or file that cannot be used, or skip "
            "such, count them and name the first ones");
    visitor("missing_values", self.missing_values,
            "tables: a feature without a value makes its row a bad one, or takes the mean of its "
            "column");
    visitor("test_share", self.test_share,
            "data without a test part: this share of each class's examples, drawn from "
            "stream_seed, is kept for testing",
            Range{0.001, 0.9});
  }
};

}  // namespace perennial::continual
