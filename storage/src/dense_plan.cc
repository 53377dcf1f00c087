// SPDX-License-Identifier: Apache-2.0
// Cutting and hashing dense entries, and writing the chunks that are new.
#include "dense_plan.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "keys.h"
#include "text.h"

namespace perennial::storage {
namespace {

using Piece = std::span<const std::byte>;

std::vector<Pieces> chunks_of(const Pieces& pieces) {
  std::vector<Pieces> chunks;
  std::size_t room = 0;  // in the last one
  for (Piece piece : pieces) {
    while (!piece.empty()) {
      if (room == 0) {
        chunks.emplace_back();
        room = kChunkBytes;
      }
      const std::size_t taken = std::min(room, piece.size());
      chunks.back().push_back(piece.first(taken));
      piece = piece.subspan(taken);
      room -= taken;
    }
  }
  return chunks;
}

Digest digest_of_chunk(const Pieces& chunk) {
  if (chunk.size() == 1) return digest_of(chunk.front());
  Hasher hasher;
  for (const Piece piece : chunk) hasher.update(piece);
  return hasher.finish();
}

}  // namespace

Result<DensePlan> plan_dense(const CommitRequest& request, const State& before) {
  const std::uint64_t commit = before.info.commit + 1;
  std::map<Digest, std::uint64_t> known;  // chunks of the current state
  for (const auto& [name, entry] : before.table.dense()) {
    if (request.rewrite_chunks) break;
    for (const ChunkRef& chunk : entry.chunks) known.emplace(chunk.digest, chunk.commit);
  }
  DensePlan plan;
  plan.table = before.table.dense();
  for (const std::string& name : request.removed_dense) plan.table.erase(name);
  for (const auto& [name, payload] : request.dense) {
    const Result<Pieces> pieces = payload.pieces();
    if (!pieces.ok()) {
      const Status& why = pieces.status();
      return error(why.code(), "dense entry '", name, "': ", why.message());
    }
    std::vector<Pieces> chunks = chunks_of(*pieces);
    DenseEntry entry{payload.size(), {}};
    entry.chunks.resize(chunks.size());
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      const Digest digest = digest_of_chunk(chunks[i]);
      const auto [place, is_new] = known.emplace(digest, commit);
      entry.chunks[i] = {digest, place->second};
      if (!is_new) continue;
      plan.new_chunks.emplace(digest, std::move(chunks[i]));
      plan.new_bytes += entry.chunk_bytes(i);
    }
    plan.table[name] = std::move(entry);
  }
  return plan;
}

Status write_chunks(Backend& backend, const DensePlan& plan, std::uint64_t commit) {
  Bytes whole;
  for (const auto& [digest, pieces] : plan.new_chunks) {
    Piece body = pieces.front();
    if (pieces.size() > 1) {
      whole.clear();
      for (const Piece piece : pieces) whole.insert(whole.end(), piece.begin(), piece.end());
      body = whole;
    }
    if (Status status = backend.put(chunk_key(commit, digest), {}, body); !status.ok()) {
      return status;
    }
  }
  return {};
}

}  // namespace perennial::storage
