// SPDX-License-Identifier: Apache-2.0
// What a commit asks a dense entry's payload for.
#include "perennial/storage/dense_payload.h"

#include <memory>
#include <utility>

#include "text.h"

namespace perennial::storage {

DensePayload::DensePayload(Bytes bytes) : size_(bytes.size()) {
  read_ = [shared = std::make_shared<const Bytes>(std::move(bytes))]() -> Result<Pieces> {
    return Pieces{*shared};
  };
}

Result<Pieces> DensePayload::pieces() const {
  Result<Pieces> pieces = read_();
  if (!pieces.ok()) return pieces;
  std::uint64_t given = 0;
  for (const std::span<const std::byte> piece : *pieces) given += piece.size();
  if (given == size_) return pieces;
  return error(StatusCode::invalid_argument, "expected ", size_,
               " bytes, the payload function gave ", given);
}

Result<Bytes> DensePayload::bytes() const {
  const Result<Pieces> pieces = this->pieces();
  if (!pieces.ok()) return pieces.status();
  Bytes whole;
  whole.reserve(size_);
  for (const std::span<const std::byte> piece : *pieces) {
    whole.insert(whole.end(), piece.begin(), piece.end());
  }
  return whole;
}

}  // namespace perennial::storage
