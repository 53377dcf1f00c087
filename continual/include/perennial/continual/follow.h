// SPDX-License-Identifier: Apache-2.0
// Rows of a table that keeps growing: a file that is appended to, or a pipe.
#pragma once

#include <torch/types.h>

#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "perennial/continual/table_options.h"

namespace perennial::continual {

// How far a table has been read: up to the end of a record. Kept in a run's state, it goes on
// there.
struct FollowPosition {
  std::uint64_t bytes = 0;
  std::uint64_t lines = 0;    // also blank ones and the header
  std::uint64_t rows = 0;     // good ones, handed out
  std::uint64_t skipped = 0;  // bad ones
  // The table's columns, once its first line was read.
  std::vector<std::string> columns = {};
  bool named = false;
  char separator = ',';  // of CSV

  boost::json::object to_json() const;
  // Throws DataError when it is no such object.
  static FollowPosition from_json(const boost::json::object& object);
};

struct FollowedRows {
  torch::Tensor x;  // (N, D) float64, NaN where missing_values allows that a value is missing
  torch::Tensor y;  // (N) int64: numbers of label_names(); of a regression (N, targets) float64
};

// Reads CSV or JSONL to its end and waits for more. A record (a line, or of CSV several, where its
// quotes hold newlines) counts once the newline that ends it is there. The
// rows are a function of the file's content, the options and the position alone, however they were
// cut into reads. Reading never goes beyond the rows asked for: position() is after the last one
// handed out.
//
// Of a pipe, what was read is gone: one that is followed again must begin where the position is.
// Gzip is refused (it has no end to wait at). Single-threaded.
class RowFollower {
 public:
  // Labels keep the numbers they have in `known_labels`; new ones get the next, in the order in
  // which they come. `features`: names that a table with names must have, in the model's order;
  // empty = every column but the label or the targets. A path without a suffix that tells is taken
  // for CSV. Throws DataError when the file cannot be opened, is shorter than `from`, or has no
  // line ending there, and for an encoding whose newline is more than one byte.
  RowFollower(const std::filesystem::path& file, const TableOptions& options,
              const FollowPosition& from = {}, const std::vector<std::string>& known_labels = {},
              const std::vector<std::string>& features = {});
  ~RowFollower();
  RowFollower(const RowFollower&) = delete;
  RowFollower& operator=(const RowFollower&) = delete;

  // The next rows, at most `count`. Waits for `count` of them, but not longer than `patience` (0:
  // only what is there now), nor after the last writer of a pipe has gone, nor once `stop` answers
  // true (asked about 20 times a second). Throws DataError for a bad row that is to be refused (the
  // position is then before it), a file that became shorter or was replaced, and a line of more
  // than 16 MiB.
  FollowedRows read(std::int64_t count, std::chrono::milliseconds patience,
                    const std::function<bool()>& stop = {});

  // True once a pipe has no writers and everything was read. A line without a newline is then its
  // last row. A file never ends.
  bool ended() const;
  const FollowPosition& position() const;
  // Every label so far; none of a regression.
  const std::vector<std::string>& label_names() const;
  // Names of the features, where the table has names.
  std::vector<std::string> feature_names() const;
  // Of a regression, a name for each target, once the table's first line was read.
  std::vector<std::string> target_names() const;
  // "FILE: 3 of 120 rows skipped: ..." of this object's own reading; empty when there were none.
  std::string bad_rows() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace perennial::continual
