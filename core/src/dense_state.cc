// SPDX-License-Identifier: Apache-2.0
// Encodes and decodes dense entries.
#include "perennial/core/dense_state.h"

#include <ATen/ops/empty.h>

#include <array>
#include <boost/endian/conversion.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "perennial/core/error.h"
#include "tensor_header.h"

namespace perennial {

namespace {

constexpr std::array<char, 4> kMagic = {'P', 'T', 'E', 'N'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kMaxDims = 16;
constexpr std::array<std::pair<at::ScalarType, std::uint32_t>, 4> kDtypes = {
    {{at::kFloat, 0}, {at::kDouble, 1}, {at::kLong, 2}, {at::kByte, 3}}};

template <class T>
void put(storage::Bytes& bytes, T value) {
  boost::endian::native_to_little_inplace(value);
  const auto* raw = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof(value));
}

class Reader {
 public:
  Reader(const storage::Bytes& bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(value)), sizeof(value));
    return boost::endian::little_to_native(value);
  }
  const std::byte* take(std::size_t n) {
    if (n > bytes_.size() - at_) fail("ends early");
    const std::byte* from = bytes_.data() + at_;
    at_ += n;
    return from;
  }
  std::size_t left() const { return bytes_.size() - at_; }
  [[noreturn]] void fail(const char* what) const {
    throw DataError("dense entry '" + std::string(name_) + "' is not a tensor: it " + what);
  }

 private:
  const storage::Bytes& bytes_;
  std::string_view name_;
  std::size_t at_ = 0;
};

}  // namespace

std::string record_text(const boost::json::object& record) {
  std::string text = boost::json::serialize(record);
  boost::system::error_code error;
  boost::json::parse(text, error);
  if (!error) return text;
  throw Error("what is to be committed could not be read back: " + error.message());
}

storage::Bytes bytes_from(std::string_view text) {
  const auto* raw = reinterpret_cast<const std::byte*>(text.data());
  return {raw, raw + text.size()};
}

std::string text_from(const storage::Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

storage::Digest digest_from_hex(std::string_view hex) {
  storage::Digest digest;
  if (hex.size() != 2 * digest.bytes.size()) throw DataError("a stored digest is malformed");
  for (std::size_t i = 0; i < digest.bytes.size(); ++i) {
    const char* const end = hex.data() + 2 * i + 2;
    if (std::from_chars(end - 2, end, digest.bytes[i], 16).ptr != end) {
      throw DataError("a stored digest is malformed");
    }
  }
  return digest;
}

storage::Bytes tensor_header(const at::Tensor& tensor) {
  std::uint32_t code = kDtypes.size();
  for (const auto& [type, number] : kDtypes) {
    if (type == tensor.scalar_type()) code = number;
  }
  if (code == kDtypes.size()) {
    throw Error("only tensors of float32, float64, int64 and uint8 can be stored");
  }
  storage::Bytes bytes;
  for (const char c : kMagic) bytes.push_back(static_cast<std::byte>(c));
  put(bytes, kVersion);
  put(bytes, code);
  put(bytes, static_cast<std::uint32_t>(tensor.dim()));
  for (const std::int64_t size : tensor.sizes()) put(bytes, static_cast<std::uint64_t>(size));
  return bytes;
}

storage::Bytes bytes_from(const at::Tensor& tensor) {
  const at::Tensor source = tensor.detach().cpu().contiguous();
  storage::Bytes bytes = tensor_header(source);
  bytes.reserve(bytes.size() + source.nbytes());
  const auto* raw = static_cast<const std::byte*>(source.const_data_ptr());
  bytes.insert(bytes.end(), raw, raw + source.nbytes());
  return bytes;
}

at::Tensor tensor_from(const storage::Bytes& bytes, std::string_view name) {
  Reader reader(bytes, name);
  if (std::memcmp(reader.take(kMagic.size()), kMagic.data(), kMagic.size()) != 0) {
    reader.fail("has another magic");
  }
  if (reader.get<std::uint32_t>() != kVersion) reader.fail("has another version");
  const auto code = reader.get<std::uint32_t>();
  if (code >= kDtypes.size()) reader.fail("has an unknown element type");
  const auto dims = reader.get<std::uint32_t>();
  if (dims > kMaxDims) reader.fail("has too many dimensions");
  const at::ScalarType type = kDtypes[code].first;
  std::vector<std::int64_t> sizes;
  std::uint64_t elements = 1;
  for (std::uint32_t i = 0; i < dims; ++i) {
    const auto size = reader.get<std::uint64_t>();
    if (size > bytes.size() || (size != 0 && elements > bytes.size() / size)) {
      reader.fail("has sizes beyond its length");
    }
    elements *= size;
    sizes.push_back(static_cast<std::int64_t>(size));
  }
  const std::size_t expected = elements * at::elementSize(type);
  if (reader.left() != expected) reader.fail("has another length than its sizes say");
  at::Tensor tensor = at::empty(sizes, type);
  if (expected > 0) std::memcpy(tensor.mutable_data_ptr(), reader.take(expected), expected);
  return tensor;
}

at::Tensor tensor_like(const storage::PageReader& store, const std::string& name,
                       const at::Tensor& like, std::string_view owner) {
  at::Tensor stored = tensor_from(value_or_throw(store.read_dense(name)), name);
  if (stored.sizes() != like.sizes() || stored.scalar_type() != like.scalar_type()) {
    throw DataError("dense entry '" + name + "' has another shape than its " + std::string(owner));
  }
  return stored;
}

}  // namespace perennial
