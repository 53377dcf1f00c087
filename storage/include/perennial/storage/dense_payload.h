// SPDX-License-Identifier: Apache-2.0
// DensePayload: the bytes of a dense entry that is to be committed, or where they come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "perennial/storage/page_reader.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// Bytes that need not lie side by side, in order.
using Pieces = std::vector<std::span<const std::byte>>;

// A value; copies share the bytes.
class DensePayload {
 public:
  // An empty entry.
  DensePayload() : DensePayload(Bytes()) {}
  // The bytes themselves.
  DensePayload(Bytes bytes);  // NOLINT(google-explicit-constructor): as easy to give as bytes
  // `read` is called once a commit, on the thread that builds the commit's file, and returns `size`
  // bytes in all, which stay as they are while the function lives.
  DensePayload(std::uint64_t size, std::function<Result<Pieces>()> read)
      : size_(size), read_(std::move(read)) {}

  std::uint64_t size() const { return size_; }
  bool has_function() const { return static_cast<bool>(read_); }
  // Calls the function. invalid_argument: it gave another number of bytes.
  Result<Pieces> pieces() const;
  // The same in one piece: a copy.
  Result<Bytes> bytes() const;

 private:
  std::uint64_t size_;
  std::function<Result<Pieces>()> read_;
};

}  // namespace perennial::storage
