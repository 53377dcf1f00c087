// SPDX-License-Identifier: Apache-2.0
// Decoder over iconv.
#include "data/encoding.h"

#include <iconv.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

bool is_utf8(std::string name) {
  std::erase_if(name, [](char c) { return c == '-' || c == '_'; });
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return name == "utf8";
}

}  // namespace

struct Decoder::Impl {
  iconv_t handle;

  explicit Impl(const std::string& encoding) : handle(::iconv_open("UTF-8", encoding.c_str())) {
    if (handle != reinterpret_cast<iconv_t>(-1)) return;
    throw InvalidOptions("encoding is '" + encoding +
                         "'; known are the names that `iconv -l` lists, as utf-8, latin1, "
                         "windows-1252 and utf-16");
  }
  ~Impl() { ::iconv_close(handle); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // Appends what it could decode to `text`; the bytes that it took.
  std::size_t run(std::string& bytes, std::string& text) const {
    ::iconv(handle, nullptr, nullptr, nullptr, nullptr);
    char* in = bytes.data();
    std::size_t left = bytes.size();
    std::array<char, 1 << 14> block;
    while (true) {
      char* out = block.data();
      std::size_t room = block.size();
      const std::size_t done = ::iconv(handle, &in, &left, &out, &room);
      text.append(block.data(), block.size() - room);
      if (done != static_cast<std::size_t>(-1) || errno != E2BIG) return bytes.size() - left;
    }
  }
};

Decoder::Decoder(const std::string& encoding) : encoding_(encoding) {
  if (!is_utf8(encoding)) impl_ = std::make_unique<Impl>(encoding);
}
Decoder::~Decoder() = default;

bool Decoder::by_line() const {
  if (impl_ == nullptr) return true;
  std::string newline = "\n", text;
  return impl_->run(newline, text) == 1 && text == "\n";
}

std::string Decoder::decode(std::string bytes, std::uint64_t line) const {
  if (impl_ == nullptr) return bytes;
  std::string text;
  text.reserve(bytes.size());
  if (impl_->run(bytes, text) == bytes.size()) return text;
  line += static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n'));
  throw DataError("line " + std::to_string(line) + ": text that is not of encoding " + encoding_);
}

}  // namespace perennial::continual
