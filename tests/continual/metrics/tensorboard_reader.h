// SPDX-License-Identifier: Apache-2.0
// A reader of TensorBoard event files that shares nothing with the writer: CRC-32C bit by bit, and
// protocol buffers by wire type.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace perennial::continual::testing {

struct ReadEvent {
  double wall_time = 0;
  std::int64_t step = 0;
  std::string file_version;
  std::string tag;
  float value = 0;
};

inline std::uint32_t slow_crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
  }
  return ~crc;
}

class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  template <class T>
  T fixed() {
    T value;
    const std::string_view raw = take(sizeof(T));
    std::memcpy(&value, raw.data(), sizeof(T));  // little-endian machines only, as the library
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  }
  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size()) throw std::runtime_error("cut short");
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  // The next field's number; leaves its content to be read.
  unsigned field(unsigned& wire) {
    const std::uint64_t key = varint();
    wire = key & 7;
    return static_cast<unsigned>(key >> 3);
  }

 private:
  std::string_view bytes_;
};

inline void read_value(std::string_view bytes, ReadEvent& event) {
  WireReader in(bytes);
  while (!in.done()) {
    unsigned wire = 0;
    const unsigned field = in.field(wire);
    if (field == 1 && wire == 2) {
      event.tag = in.take(in.varint());
    } else if (field == 2 && wire == 5) {
      event.value = in.fixed<float>();
    } else {
      throw std::runtime_error("unexpected field of a value");
    }
  }
}

inline std::vector<ReadEvent> read_events(std::string_view file) {
  std::vector<ReadEvent> events;
  WireReader in(file);
  const auto check = [](std::string_view data, std::uint32_t masked) {
    const std::uint32_t rotated = masked - 0xA282EAD8U;
    if (((rotated >> 17) | (rotated << 15)) != slow_crc32c(data)) {
      throw std::runtime_error("wrong checksum");
    }
  };
  while (!in.done()) {
    const std::string_view length = in.take(8);
    check(length, in.fixed<std::uint32_t>());
    const std::string_view data = in.take(WireReader(length).fixed<std::uint64_t>());
    check(data, in.fixed<std::uint32_t>());
    ReadEvent event;
    WireReader message(data);
    while (!message.done()) {
      unsigned wire = 0;
      const unsigned field = message.field(wire);
      if (field == 1 && wire == 1) {
        event.wall_time = message.fixed<double>();
      } else if (field == 2 && wire == 0) {
        event.step = static_cast<std::int64_t>(message.varint());
      } else if (field == 3 && wire == 2) {
        event.file_version = message.take(message.varint());
      } else if (field == 5 && wire == 2) {
        WireReader summary(message.take(message.varint()));
        while (!summary.done()) {
          const unsigned inner = summary.field(wire);
          if (inner != 1 || wire != 2) throw std::runtime_error("unexpected field of a summary");
          read_value(summary.take(summary.varint()), event);
        }
      } else {
        throw std::runtime_error("unexpected field of an event");
      }
    }
    events.push_back(event);
  }
  return events;
}

}  // namespace perennial::continual::testing
