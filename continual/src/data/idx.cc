// SPDX-License-Identifier: Apache-2.0
// The IDX format of MNIST: two zero bytes, element type, number of dimensions, the dimensions as
// big-endian 32-bit integers, then the elements in C order.
#include <ATen/ops/empty.h>

#include <array>
#include <boost/endian/conversion.hpp>
#include <cstdio>
#include <limits>

#include "data/byte_source.h"
#include "data/readers.h"
#include "perennial/continual/dataset.h"

namespace perennial::continual {
namespace {

constexpr unsigned kUnsignedByte = 0x08;
constexpr unsigned kMaxDims = 4;

std::string hex(unsigned byte) {
  char text[8];
  std::snprintf(text, sizeof text, "0x%02x", byte);
  return text;
}

}  // namespace

std::string format_dims(const std::vector<std::int64_t>& dims) {
  std::string text;
  for (const std::int64_t dim : dims) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

bool checked_bytes(const std::vector<std::int64_t>& dims, std::int64_t element_bytes,
                   std::uint64_t& bytes) {
  std::int64_t product = element_bytes;
  for (const std::int64_t dim : dims) {
    if (dim < 0) return false;
    if (__builtin_mul_overflow(product, dim, &product)) return false;
  }
  bytes = static_cast<std::uint64_t>(product);
  return true;
}

torch::Tensor read_idx(const std::filesystem::path& file) {
  ByteSource source(file);
  std::array<unsigned char, 4> magic{};
  source.read_exactly(magic.data(), magic.size(), "the IDX magic number");
  if (magic[0] != 0 || magic[1] != 0) {
    source.fail("not an IDX file: it starts with " + hex(magic[0]) + " " + hex(magic[1]) +
                ", 0x00 0x00 was expected");
  }
  if (magic[2] != kUnsignedByte) {
    source.fail("IDX element type is " + hex(magic[2]) + ", 0x08 (unsigned byte) was expected");
  }
  if (magic[3] < 1 || magic[3] > kMaxDims) {
    source.fail("IDX with " + std::to_string(magic[3]) + " dimensions, 1 to 4 were expected");
  }
  std::vector<std::int64_t> dims(magic[3]);
  for (std::int64_t& dim : dims) {
    std::array<unsigned char, 4> bytes{};
    source.read_exactly(bytes.data(), bytes.size(), "a dimension of the IDX header");
    dim = boost::endian::load_big_u32(bytes.data());
  }
  std::uint64_t payload = 0;
  const std::uint64_t header = source.position();
  if (!checked_bytes(dims, 1, payload) || payload > source.size_bound() - header) {
    source.fail("its header promises " + format_dims(dims) + " bytes, the file has " +
                (source.compressed() ? "at most " : "") +
                std::to_string(source.size_bound() - header));
  }
  torch::Tensor values = at::empty(dims, at::kByte);
  const std::uint64_t got = source.read(values.mutable_data_ptr(), payload);
  if (got < payload) {
    source.fail("truncated: its header promises " + format_dims(dims) + " = " +
                std::to_string(payload) + " bytes, the file has " + std::to_string(got));
  }
  if (!source.at_end()) {
    source.fail("its header promises " + format_dims(dims) + " = " + std::to_string(payload) +
                " bytes, the file has more");
  }
  return values;
}

}  // namespace perennial::continual
