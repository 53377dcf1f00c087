// SPDX-License-Identifier: Apache-2.0
// XXH3-128 digests, at once and streaming.
#include "perennial/storage/digest.h"

#include <cstring>
#include <new>

#include "xxh3.h"

namespace perennial::storage {
namespace {

Digest canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical_hash;
  XXH128_canonicalFromHash(&canonical_hash, hash);
  Digest digest;
  static_assert(sizeof(canonical_hash.digest) == sizeof(digest.bytes));
  std::memcpy(digest.bytes.data(), canonical_hash.digest, digest.bytes.size());
  return digest;
}

}  // namespace

std::string Digest::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

Digest digest_of(std::span<const std::byte> bytes) {
  return canonical(XXH3_128bits(bytes.data(), bytes.size()));
}

struct Hasher::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(xxh);
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  XXH3_state_t* xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;

Hasher& Hasher::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::update(const Digest& digest) {
  return update(std::as_bytes(std::span(digest.bytes)));
}

Hasher& Hasher::update(std::uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(value >> (8 * i));
  return update(std::span<const std::byte>(bytes));
}

Hasher& Hasher::update(std::string_view text) {
  update(std::uint64_t{text.size()});
  return update(std::as_bytes(std::span(text)));
}

Digest Hasher::finish() const { return canonical(XXH3_128bits_digest(state_->xxh)); }

}  // namespace perennial::storage
