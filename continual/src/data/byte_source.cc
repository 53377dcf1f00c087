// SPDX-License-Identifier: Apache-2.0
// ByteSource over Boost.Iostreams.
#include "data/byte_source.h"

#include <array>
#include <boost/iostreams/device/file.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <ios>
#include <system_error>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// Deflate packs at best 1032 bytes into one (zlib's technical notes).
constexpr std::uint64_t kDeflateBestRatio = 1032;

}  // namespace

struct ByteSource::Impl {
  boost::iostreams::filtering_streambuf<boost::iostreams::input> stream;
};

ByteSource::ByteSource(const std::filesystem::path& file)
    : file_(file), impl_(std::make_unique<Impl>()) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) fail("no such file");
  if (std::filesystem::is_directory(status)) fail("is a folder, a file was expected");
  std::array<unsigned char, 2> start{};
  {
    errno = 0;
    std::ifstream probe(file, std::ios::binary);
    if (!probe) fail(std::string("cannot be opened: ") + std::strerror(errno));
    probe.read(reinterpret_cast<char*>(start.data()), start.size());
  }
  compressed_ = start[0] == 0x1F && start[1] == 0x8B;
  const std::uint64_t bytes = std::filesystem::file_size(file, error);
  if (error) fail("has no size: " + error.message());
  size_bound_ = compressed_ ? bytes * kDeflateBestRatio : bytes;
  if (compressed_) impl_->stream.push(boost::iostreams::gzip_decompressor());
  impl_->stream.push(boost::iostreams::file_source(file.string(), std::ios::binary));
}

ByteSource::~ByteSource() = default;

std::size_t ByteSource::read(void* to, std::size_t count) {
  try {
    const std::streamsize got =
        impl_->stream.sgetn(static_cast<char*>(to), static_cast<std::streamsize>(count));
    position_ += static_cast<std::uint64_t>(got);
    return static_cast<std::size_t>(got);
  } catch (const std::ios_base::failure&) {
    fail(compressed_ ? "damaged or truncated gzip data" : "cannot be read");
  }
}

void ByteSource::read_exactly(void* to, std::size_t count, const char* what) {
  const std::size_t got = read(to, count);
  if (got < count) {
    fail("truncated: " + std::string(what) + " has " + std::to_string(count) + " bytes, " +
         std::to_string(got) + " are there");
  }
}

bool ByteSource::at_end() {
  try {
    return impl_->stream.sgetc() == std::char_traits<char>::eof();
  } catch (const std::ios_base::failure&) {
    fail(compressed_ ? "damaged or truncated gzip data" : "cannot be read");
  }
}

std::string ByteSource::rest() {
  std::string text;
  std::array<char, 1 << 16> block;
  while (const std::size_t got = read(block.data(), block.size())) text.append(block.data(), got);
  return text;
}

void ByteSource::fail(const std::string& message) const {
  throw DataError(file_.string() + ": " + message);
}

std::string peek_bytes(const std::filesystem::path& file, std::size_t count) {
  ByteSource source(file);
  std::string bytes(count, '\0');
  bytes.resize(source.read(bytes.data(), count));
  return bytes;
}

}  // namespace perennial::continual
