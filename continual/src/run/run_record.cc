// SPDX-License-Identifier: Apache-2.0
// Appends events and replaces the small files whole.
#include "run/run_record.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <iterator>
#include <span>
#include <sstream>
#include <utility>

#include "perennial/continual/tensorboard.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

std::string content_of(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  std::ifstream in(file, std::ios::binary);
  std::ostringstream out;
  if (in && in.peek() != std::ifstream::traits_type::eof()) out << in.rdbuf();
  if (!in.is_open() || in.bad() || !out) throw Error(file.string() + " cannot be read");
  return out.str();
}

bool begins_as(const std::string& text, const RecordMark& mark) {
  return text.size() >= mark.bytes &&
         storage::digest_of(std::as_bytes(std::span(text.data(), mark.bytes))).hex() == mark.digest;
}

// Whether these lines tell of a commit of another state.
bool tells_of_others(std::string_view lines, const std::string& state_digest) {
  std::istringstream in{std::string(lines)};
  for (std::string line; std::getline(in, line);) {
    boost::system::error_code error;
    const json::value event = json::parse(line, error);
    if (error || !event.is_object()) continue;
    const json::object& fields = event.get_object();
    const json::value* digest = fields.if_contains("state_digest");
    if (fields.contains("commit") && digest != nullptr && *digest != json::value(state_digest))
      return true;
  }
  return false;
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

void RunRecord::open(const std::vector<RecordMark>& marks, const std::string& state_digest) {
  if (folder_.empty()) return;
  fs::create_directories(folder_);
  const std::string now = content_of(events_file());
  std::optional<std::string> kept;
  for (auto mark = marks.begin(); mark != marks.end() && !kept; ++mark) {
    kept = beginning(*mark, now);
  }
  if (!kept) kept.emplace();
  const bool goes_on = now.starts_with(*kept);
  const std::string_view cut = std::string_view(now).substr(goes_on ? kept->size() : 0);
  if (tells_of_others(cut, state_digest)) {
    const std::string digest = storage::digest_of(std::as_bytes(std::span(now))).hex();
    replace(("events-" + digest + ".jsonl").c_str(), now);
  }
  if (!goes_on) {
    replace("events.jsonl", *kept);
  } else if (now.size() > kept->size()) {
    fs::resize_file(events_file(), kept->size());
  }
  bytes_ = kept->size();
  digest_.update(std::as_bytes(std::span(*kept)));
  open_tensorboard();
  events_.open(events_file(), std::ios::app | std::ios::binary);
  if (!events_) throw Error(events_file().string() + " cannot be opened for writing");
}

// What a mark says, from events.jsonl, whose content is `now`, or a file that was set aside.
std::optional<std::string> RunRecord::beginning(const RecordMark& mark,
                                                const std::string& now) const {
  if (mark.digest.empty()) {
    const std::size_t end = now.rfind('\n', mark.bytes > 0 ? mark.bytes - 1 : std::string::npos);
    return mark.bytes == 0 || end == std::string::npos ? "" : now.substr(0, end + 1);
  }
  if (begins_as(now, mark)) return now.substr(0, mark.bytes);
  std::error_code error;
  for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with("events-") || at->path().extension() != ".jsonl") continue;
    const std::string aside = content_of(at->path());
    if (begins_as(aside, mark)) return aside.substr(0, mark.bytes);
  }
  return std::nullopt;
}

bool RunRecord::is_another(const RecordMark& mark) const {
  if (folder_.empty() || mark.digest.empty() || !fs::exists(events_file())) return false;
  return !begins_as(content_of(events_file()), mark);
}

// Made anew of the events that are kept, so that both files always tell the same.
void RunRecord::open_tensorboard() {
  const fs::path file = folder_ / kTensorboardFile;
  tensorboard_.open(file, std::ios::trunc | std::ios::binary);
  std::ifstream events(events_file(), std::ios::binary);
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
  if (!events_) throw Error(events_file().string() + " cannot be written: is the disk full?");
  bytes_ += text.size();
  digest_.update(std::as_bytes(std::span(text)));
  add_scalars(line);
  tensorboard_.flush();
  if (!tensorboard_) {
    throw Error((folder_ / kTensorboardFile).string() + " cannot be written: is the disk full?");
  }
}

RecordMark RunRecord::mark() const { return {bytes_, digest_.finish().hex()}; }

void RunRecord::write_metrics(const ScoreMatrix& matrix, const AnytimeCurve& curve, TaskKind task) {
  if (folder_.empty()) return;
  std::ostringstream text;
  text.precision(17);
  text << "metric,after_experience,experience,value,steps\n";
  const std::int64_t n = matrix.experiences();
  for (std::int64_t row = 0; row <= n; ++row) {
    for (std::int64_t column = 0; column < n; ++column) {
      if (!matrix.has(row, column)) continue;
      text << score_names(task).values << ',' << row << ',' << column + 1 << ','
           << matrix.at(row, column) << ",\n";
    }
  }
  for (const AnytimePoint& point : curve.points) {
    for (std::size_t j = 0; j < point.scores.size(); ++j) {
      text << "anytime." << score_names(task).values << ','
           << point.experience - (point.end ? 0 : 1) << ',' << j + 1 << ',' << point.scores[j]
           << ',' << point.steps << '\n';
    }
  }
  json::object metrics = all_metrics(matrix, task);
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
