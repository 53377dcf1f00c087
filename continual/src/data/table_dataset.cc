// SPDX-License-Identifier: Apache-2.0
// Whole tables: a data set with labels or targets, or rows for prediction.
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>
#include <utility>

#include "data/byte_source.h"
#include "data/encoding.h"
#include "data/label_table.h"
#include "data/readers.h"
#include "data/table.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// Bytes that tell JSONL from CSV where the name does not.
constexpr std::size_t kStartBytes = 64;

struct Rows {
  std::vector<double> values;
  std::vector<std::string> labels;
  std::vector<double> targets;
  std::vector<std::string> target_names;
  std::vector<std::string> columns;  // of the features, where the table has names
  std::int64_t width = 0;
  std::int64_t count = 0;
  std::string note;
};

// What is left of a file, as UTF-8 if the encoding is the right one.
std::string text_of(ByteSource& source, const std::string& encoding) {
  Decoder decoder(encoding);
  std::string text = source.rest();
  const bool utf16 = text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
  try {
    text = decoder.decode(std::move(text), 1);
  } catch (const DataError& error) {
    source.fail(error.what());
  }
  if (text.find('\0') != std::string::npos) {
    source.fail(std::string("neither IDX, NPY nor text: a table of numbers was expected") +
                (utf16 ? "; it begins as UTF-16 does (see encoding)" : ""));
  }
  return text;
}

// Reads every row. `known_label` says whether a label may be used; empty = all may.
Rows read_all(const std::filesystem::path& file, const TableOptions& options, bool with_label,
              const std::vector<std::string>& features, const LabelTable* allowed) {
  ByteSource source(file);
  const std::string content = text_of(source, options.encoding);
  const std::string_view start = std::string_view(content).substr(0, kStartBytes);
  TableParser parser(table_format(file, start), options, with_label, features);
  BadRowLog bad(file, options.bad_rows);
  Rows rows;
  std::string_view text = content;
  while (!text.empty()) {
    const std::string_view record = *parser.next(text, true);
    text.remove_prefix(std::min(record.size() + 1, text.size()));
    TableParser::Outcome outcome{};
    try {
      outcome = parser.take(record);
    } catch (const DataError& error) {
      source.fail(error.what());
    }
    if (outcome == TableParser::Outcome::nothing) continue;
    if (outcome == TableParser::Outcome::bad) {
      bad.add(parser.problem());
      continue;
    }
    if (allowed != nullptr && allowed->find(parser.label()) < 0) {
      bad.add("line " + std::to_string(parser.line()) + ": the training part has no label " +
              shown(parser.label()));
      continue;
    }
    rows.values.insert(rows.values.end(), parser.features().begin(), parser.features().end());
    if (!parser.targets().empty()) {
      rows.targets.insert(rows.targets.end(), parser.targets().begin(), parser.targets().end());
    } else if (with_label) {
      rows.labels.push_back(parser.label());
    }
    ++rows.count;
  }
  rows.note = bad.summary(static_cast<std::uint64_t>(rows.count));
  if (rows.count == 0) {
    if (bad.count() > 0) throw DataError(rows.note + "; none is left");
    source.fail("holds no rows of numbers");
  }
  rows.width = std::ssize(parser.columns().features);
  rows.columns = parser.feature_names();
  rows.target_names = parser.target_names();
  return rows;
}

// (count, n) of count x n numbers.
at::Tensor tensor_of(const std::vector<double>& values, std::int64_t count) {
  at::Tensor x = at::empty({count, std::ssize(values) / count}, at::kDouble);
  std::copy(values.begin(), values.end(), x.mutable_data_ptr<double>());
  return x;
}

Dataset dataset_of(const Rows& rows, const LabelTable& labels) {
  Dataset data;
  data.table = true;
  data.columns = rows.columns;
  data.x = tensor_of(rows.values, rows.count);
  if (!rows.targets.empty()) {
    data.targets = rows.target_names;
    data.y = tensor_of(rows.targets, rows.count);
    return data;
  }
  data.y = at::empty({rows.count}, at::kLong);
  std::int64_t* y = data.y.mutable_data_ptr<std::int64_t>();
  for (const std::string& label : rows.labels) *y++ = labels.find(label);
  data.label_names = labels.names();
  return data;
}

}  // namespace

TrainTest load_table_dataset(const std::filesystem::path& train,
                             const std::optional<std::filesystem::path>& test,
                             const TableOptions& options,
                             const std::vector<std::string>& known_labels,
                             const std::vector<std::string>& known_columns) {
  TrainTest data;
  const Rows rows = read_all(train, options, true, known_columns, nullptr);
  LabelTable labels(known_labels);
  labels.add_sorted(rows.labels);
  data.train = dataset_of(rows, labels);
  if (!rows.note.empty()) data.notes.push_back(rows.note);
  if (test) {
    const Rows other =
        read_all(*test, options, true, rows.columns, rows.targets.empty() ? &labels : nullptr);
    if (other.width != rows.width) {
      throw DataError(test->string() + ": " + std::to_string(other.width) + " features; " +
                      train.string() + " has " + std::to_string(rows.width));
    }
    data.test = dataset_of(other, labels);
    data.test.columns = data.train.columns;
    if (!other.note.empty()) data.notes.push_back(other.note);
  }
  return data;
}

at::Tensor read_table_rows(const std::filesystem::path& file,
                           const std::vector<std::string>& columns, const TableOptions& options) {
  TableOptions strict = options;
  strict.bad_rows = BadRows::refuse;
  const Rows rows = read_all(file, strict, false, columns, nullptr);
  return tensor_of(rows.values, rows.count);
}

}  // namespace perennial::continual
