// SPDX-License-Identifier: Apache-2.0
// TensorBoard event files: TFRecord frames around Event messages with scalar values.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace perennial::continual {

// A number of a run at a step, as TensorBoard shows it.
struct Scalar {
  std::string tag;
  std::int64_t step = 0;
  float value = 0;
};

// CRC-32C (Castagnoli, RFC 3720) of `bytes`, masked as TFRecord wants it:
// rotate right by 15 bits, add 0xA282EAD8.
std::uint32_t masked_crc32c(std::string_view bytes);

// One TFRecord: length (8 bytes, little-endian), its masked CRC, the data, their masked CRC.
std::string tfrecord(std::string_view data);

// The record that an event file begins with: Event{wall_time, file_version "brain.Event:2"}.
std::string tensorboard_header(double wall_time);
// A record of Event{wall_time, step, summary{value{tag, simple_value}}}; wall_time in seconds since
// 1970.
std::string tensorboard_record(double wall_time, const Scalar& scalar);

// The scalars that a line of events.jsonl stands for; most have none. train/loss, accuracy/test_NN
// (after each experience), anytime/..., experience/... and metrics/... .
std::vector<Scalar> scalars_of(const boost::json::object& event);

// The file that a run's events are kept in for TensorBoard. A function of events.jsonl alone.
inline constexpr const char* kTensorboardFile = "events.out.tfevents.perennial";

}  // namespace perennial::continual
