// SPDX-License-Identifier: Apache-2.0
// Encodes the three messages that scalars need: Event, Summary and Summary.Value
// (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto).
#include "perennial/continual/tensorboard.h"

#include <bit>
#include <boost/crc.hpp>
#include <boost/json/array.hpp>
#include <cstdio>
#include <type_traits>

#include "perennial/continual/task_kind.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// Field numbers of the messages, and the wire types of protocol buffers.
constexpr unsigned kEventWallTime = 1, kEventStep = 2, kEventFileVersion = 3, kEventSummary = 5;
constexpr unsigned kSummaryValue = 1;
constexpr unsigned kValueTag = 1, kValueSimple = 2;
constexpr unsigned kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;

template <class T>
void append_little_endian(std::string& out, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}

void append_key(std::string& out, unsigned field, unsigned wire) {
  append_varint(out, field << 3 | wire);
}

void append_bytes(std::string& out, unsigned field, std::string_view bytes) {
  append_key(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

std::string event_at(double wall_time) {
  std::string event;
  append_key(event, kEventWallTime, kFixed64);
  append_little_endian(event, std::bit_cast<std::uint64_t>(wall_time));
  return event;
}

// "prefix/test_07": zero-padded, so that TensorBoard's order of names is that of the numbers.
std::string numbered(const std::string& prefix, std::size_t number) {
  char text[32];
  std::snprintf(text, sizeof(text), "/test_%02zu", number);
  return prefix + text;
}

std::int64_t integer_of(const json::object& event, std::string_view key) {
  const json::value* value = event.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<std::int64_t>() : 0;
}

void add_numbers(std::vector<Scalar>& scalars, const json::object& object, std::string_view key,
                 const std::string& prefix, std::int64_t step) {
  const json::value* all = object.if_contains(key);
  if (all == nullptr || !all->is_array()) return;
  std::size_t number = 0;
  for (const json::value& value : all->get_array()) {
    ++number;
    if (!value.is_number()) continue;
    scalars.push_back(
        {numbered(prefix, number), step, static_cast<float>(value.to_number<double>())});
  }
}

void add_number(std::vector<Scalar>& scalars, const json::object& event, std::string_view key,
                const std::string& tag, std::int64_t step) {
  const json::value* value = event.if_contains(key);
  if (value == nullptr || !value->is_number()) return;
  scalars.push_back({tag, step, static_cast<float>(value->to_number<double>())});
}

// The scores of test sets, under a prefix of their own or what they are called.
void add_scores(std::vector<Scalar>& scalars, const json::object& event, const std::string& prefix,
                std::int64_t step) {
  for (const auto& [task, name] : enum_names(TaskKind{})) {
    const std::string values = score_names(task).values;
    add_numbers(scalars, event, values, prefix.empty() ? values : prefix, step);
  }
}

// Root mean squared errors of a regression's targets: "rmse/TARGET/test_01".
void add_errors(std::vector<Scalar>& scalars, const json::object& event, std::int64_t step) {
  const json::value* errors = event.if_contains("rmse");
  if (errors == nullptr || !errors->is_object()) return;
  for (const auto& target : errors->get_object()) {
    const std::string name(target.key());
    add_numbers(scalars, errors->get_object(), name, "rmse/" + name, step);
  }
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view bytes) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(bytes.data(), bytes.size());
  return std::rotr(static_cast<std::uint32_t>(crc.checksum()), 15) + 0xA282EAD8;
}

std::string tfrecord(std::string_view data) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(data.size()));
  append_little_endian(record, masked_crc32c(record));
  record += data;
  append_little_endian(record, masked_crc32c(data));
  return record;
}

std::string tensorboard_header(double wall_time) {
  std::string event = event_at(wall_time);
  append_bytes(event, kEventFileVersion, "brain.Event:2");
  return tfrecord(event);
}

std::string tensorboard_record(double wall_time, const Scalar& scalar) {
  std::string value;
  append_bytes(value, kValueTag, scalar.tag);
  append_key(value, kValueSimple, kFixed32);
  append_little_endian(value, std::bit_cast<std::uint32_t>(scalar.value));
  std::string summary;
  append_bytes(summary, kSummaryValue, value);
  std::string event = event_at(wall_time);
  append_key(event, kEventStep, kVarint);
  append_varint(event, static_cast<std::uint64_t>(scalar.step));
  append_bytes(event, kEventSummary, summary);
  return tfrecord(event);
}

std::vector<Scalar> scalars_of(const json::object& event) {
  std::vector<Scalar> scalars;
  const json::value* name = event.if_contains("event");
  if (name == nullptr || !name->is_string()) return scalars;
  const std::string_view kind = name->get_string();
  const std::int64_t steps = integer_of(event, "steps");
  if (kind == "step") {
    add_number(scalars, event, "loss", "train/loss", steps);
  } else if (kind == "evaluate") {
    add_scores(scalars, event, "", steps);
    add_errors(scalars, event, steps);
  } else if (kind == "anytime") {
    add_scores(scalars, event, "anytime", steps);
    double sum = 0;
    for (const Scalar& scalar : scalars) sum += static_cast<double>(scalar.value);
    if (!scalars.empty()) {
      const double mean = sum / static_cast<double>(scalars.size());
      scalars.push_back({"anytime/mean_of_seen", steps, static_cast<float>(mean)});
    }
  } else if (kind == "experience") {
    const std::int64_t experience = integer_of(event, "experience");
    for (const auto& field : event) {
      const std::string_view key = field.key();
      if (key == "event" || key == "unix_ms" || key == "experience" || key == "steps") continue;
      add_number(scalars, event, key, "experience/" + std::string(key), experience);
    }
  } else if (kind == "end") {
    const json::value* metrics = event.if_contains("metrics");
    if (metrics != nullptr && metrics->is_object()) {
      for (const auto& metric : metrics->get_object()) {
        add_number(scalars, metrics->get_object(), metric.key(),
                   "metrics/" + std::string(metric.key()), steps);
      }
    }
  }
  return scalars;
}

}  // namespace perennial::continual
