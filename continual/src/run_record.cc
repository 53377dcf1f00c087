// SPDX-License-Identifier: Apache-2.0
// Appends events and replaces the small files whole.
#include "run_record.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <sstream>
#include <utility>

#include "perennial/continual/tensorboard.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

// Bytes up to the end of the last whole line.
std::uint64_t whole_lines(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::uint64_t at = 0, end = 0;
  for (char c; in.get(c);) {
    ++at;
    if (c == '\n') end = at;
  }
  return end;
}

std::int64_t unix_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

double seconds_of(const json::object& event) {
  const json::value* ms = event.if_contains("unix_ms");
  return ms != nullptr && ms->is_number() ? ms->to_number<double>() / 1e3 : 0;
}

}  // namespace

RunRecord::RunRecord(fs::path folder) : folder_(std::move(folder)) {}

void RunRecord::open(std::uint64_t keep_bytes) {
  if (folder_.empty()) return;
  fs::create_directories(folder_);
  const fs::path file = folder_ / "events.jsonl";
  const std::uint64_t size = fs::exists(file) ? fs::file_size(file) : 0;
  // A crash may have lost lines that a commit counts; what is left then stays as it is.
  bytes_ = std::min(size, keep_bytes);
  if (size < keep_bytes) bytes_ = whole_lines(file);
  if (size > bytes_) fs::resize_file(file, bytes_);
  open_tensorboard();
  events_.open(file, std::ios::app | std::ios::binary);
  if (!events_) throw Error(file.string() + " cannot be opened for writing");
}

// Made anew of the events that are kept, so that both files always tell the same.
void RunRecord::open_tensorboard() {
  const fs::path file = folder_ / kTensorboardFile;
  tensorboard_.open(file, std::ios::trunc | std::ios::binary);
  std::ifstream events(folder_ / "events.jsonl", std::ios::binary);
  bool first = true;
  for (std::string line; std::getline(events, line);) {
    boost::system::error_code error;
    const json::value event = json::parse(line, error);
    if (error || !event.is_object()) continue;
    if (std::exchange(first, false))
      tensorboard_ << tensorboard_header(seconds_of(event.get_object()));
    add_scalars(event.get_object());
  }
  if (first) tensorboard_ << tensorboard_header(static_cast<double>(unix_ms()) / 1e3);
  tensorboard_.flush();
  if (!tensorboard_) throw Error(file.string() + " cannot be written: is the disk full?");
}

void RunRecord::add_scalars(const json::object& event) {
  for (const Scalar& scalar : scalars_of(event)) {
    tensorboard_ << tensorboard_record(seconds_of(event), scalar);
  }
}

void RunRecord::event(std::string_view name, const json::object& fields) {
  if (folder_.empty()) return;
  json::object line{{"event", name}, {"unix_ms", unix_ms()}};
  for (const auto& field : fields) line[field.key()] = field.value();
  const std::string text = json::serialize(line) + "\n";
  events_ << text;
  events_.flush();
  if (!events_)
    throw Error((folder_ / "events.jsonl").string() + " cannot be written: is the disk full?");
  bytes_ += text.size();
  add_scalars(line);
  tensorboard_.flush();
  if (!tensorboard_) {
    throw Error((folder_ / kTensorboardFile).string() + " cannot be written: is the disk full?");
  }
}

std::uint64_t RunRecord::event_bytes() { return bytes_; }

void RunRecord::write_metrics(const AccuracyMatrix& matrix, const AnytimeCurve& curve) {
  if (folder_.empty()) return;
  std::ostringstream text;
  text.precision(17);
  text << "metric,after_experience,experience,value,steps\n";
  const std::int64_t n = matrix.experiences();
  for (std::int64_t row = 0; row <= n; ++row) {
    for (std::int64_t column = 0; column < n; ++column) {
      if (!matrix.has(row, column)) continue;
      text << "accuracy," << row << ',' << column + 1 << ',' << matrix.at(row, column) << ",\n";
    }
  }
  for (const AnytimePoint& point : curve.points) {
    for (std::size_t j = 0; j < point.accuracy.size(); ++j) {
      text << "anytime.accuracy," << point.experience - (point.end ? 0 : 1) << ',' << j + 1 << ','
           << point.accuracy[j] << ',' << point.steps << '\n';
    }
  }
  json::object metrics = all_metrics(matrix);
  if (curve.options.on()) {
    for (const auto& metric : all_metrics(curve)) metrics[metric.key()] = metric.value();
  }
  for (const auto& metric : metrics) {
    if (metric.value().is_double()) {
      text << metric.key() << ',' << n << ",," << metric.value().get_double() << ",\n";
    }
  }
  replace("metrics.csv", text.str());
}

void RunRecord::write_summary(const json::object& summary) {
  if (!folder_.empty()) replace("summary.json", json::serialize(summary) + "\n");
}

bool RunRecord::has_summary() const {
  return folder_.empty() || fs::exists(folder_ / "summary.json");
}

void RunRecord::replace(const char* name, std::string_view text) {
  fs::create_directories(folder_);  // a finished run, met in a copied store, opened no folder
  const fs::path file = folder_ / name;
  const fs::path next = folder_ / (std::string(name) + ".next");
  {
    std::ofstream out(next, std::ios::binary | std::ios::trunc);
    out << text;
    out.flush();
    if (!out) throw Error(next.string() + " cannot be written: is the disk full?");
  }
  fs::rename(next, file);
}

}  // namespace perennial::continual
