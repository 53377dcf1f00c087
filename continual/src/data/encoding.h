// SPDX-License-Identifier: Apache-2.0
// Text of other encodings as UTF-8.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace perennial::continual {

// The C library's iconv, from one encoding. Single-threaded.
class Decoder {
 public:
  // Throws InvalidOptions for a name that iconv does not know.
  explicit Decoder(const std::string& encoding);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // True where every line stands for itself: a newline is one byte, as in ASCII.
  bool by_line() const;
  // A whole text; of UTF-8 as it is, unchecked. Throws DataError "line N: ..." (counted from
  // `line`) for bytes that are not of the encoding.
  std::string decode(std::string bytes, std::uint64_t line) const;

 private:
  struct Impl;
  std::string encoding_;
  std::unique_ptr<Impl> impl_;  // null for UTF-8
};

}  // namespace perennial::continual
