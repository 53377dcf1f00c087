// SPDX-License-Identifier: Apache-2.0
// The files of a run: events.jsonl, its scalars for TensorBoard, metrics.csv and summary.json.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "perennial/continual/anytime.h"
#include "perennial/continual/metrics.h"

namespace perennial::continual {

// Writes the files of one run folder; without a folder it does nothing. Throws Error when the disk
// refuses.
class RunRecord {
 public:
  explicit RunRecord(std::filesystem::path folder);

  // Opens events.jsonl for appending after its first `keep_bytes`: what a resumed run repeats is
  // cut off, there and in TensorBoard's file.
  void open(std::uint64_t keep_bytes);
  // Appends {"event": name, "unix_ms": ..., fields...} as one line.
  void event(std::string_view name, const boost::json::object& fields);
  // Bytes of events.jsonl so far; flushed to the operating system.
  std::uint64_t event_bytes();
  // Replaces metrics.csv: metric,after_experience,experience,value,steps, one line a number. The
  // last column is that of the points of the anytime curve ("anytime.accuracy") alone.
  void write_metrics(const AccuracyMatrix& matrix, const AnytimeCurve& curve);
  void write_summary(const boost::json::object& summary);
  bool has_summary() const;

 private:
  void replace(const char* name, std::string_view text);
  void open_tensorboard();
  void add_scalars(const boost::json::object& event);

  std::filesystem::path folder_;
  std::ofstream events_, tensorboard_;
  std::uint64_t bytes_ = 0;
};

}  // namespace perennial::continual
