// SPDX-License-Identifier: Apache-2.0
// The files of a run: events.jsonl, its scalars for TensorBoard, metrics.csv and summary.json.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/metrics.h"
#include "perennial/storage/digest.h"

namespace perennial::continual {

// How much of a run's record a state has: the first `bytes` of events.jsonl, of this digest.
struct RecordMark {
  std::uint64_t bytes = 0;
  std::string digest = {};  // of XXH3-128, in hexadecimal; empty where an older version wrote it

  bool operator==(const RecordMark&) const = default;
};

// Writes the files of one run folder; without a folder it does nothing. Throws Error when the disk
// refuses.
class RunRecord {
 public:
  explicit RunRecord(std::filesystem::path folder);

  // Opens events.jsonl for appending after what the first of `marks` says, or where no file has
  // that, the next one: what a resumed run repeats is cut off, there and in TensorBoard's file. A
  // store may go back to another state than `state_digest`, the one that the run resumes from: a
  // record that such states count on is set aside as events-DIGEST.jsonl before it is cut, and
  // found there again.
  void open(const std::vector<RecordMark>& marks, const std::string& state_digest);
  // Whether events.jsonl is there and begins with other events than the mark says.
  bool is_another(const RecordMark& mark) const;
  // Appends {"event": name, "unix_ms": ..., fields...} as one line.
  void event(std::string_view name, const boost::json::object& fields);
  // Of events.jsonl so far; flushed to the operating system.
  RecordMark mark() const;
  // Replaces metrics.csv: metric,after_experience,experience,value,steps, one line a number. The
  // last column is that of the points of the anytime curve ("anytime.accuracy") alone.
  void write_metrics(const ScoreMatrix& matrix, const AnytimeCurve& curve, TaskKind task);
  void write_summary(const boost::json::object& summary);
  bool has_summary() const;

 private:
  void replace(const char* name, std::string_view text);
  std::filesystem::path events_file() const { return folder_ / "events.jsonl"; }
  std::optional<std::string> beginning(const RecordMark& mark, const std::string& now) const;
  void open_tensorboard();
  void add_scalars(const boost::json::object& event);

  std::filesystem::path folder_;
  std::ofstream events_, tensorboard_;
  std::uint64_t bytes_ = 0;  // of events.jsonl, and their digest
  storage::Hasher digest_;
};

}  // namespace perennial::continual
