// SPDX-License-Identifier: Apache-2.0
// What is where in a shard file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/core/peer.h"
#include "perennial/storage/safetensors.h"

namespace perennial {

inline constexpr std::string_view kWrittenPages = "pages.written";
inline constexpr std::string_view kPageDigests = "pages.digest";
inline constexpr std::string_view kRouterPrefix = "router.";
inline constexpr std::size_t kDigestBytes = sizeof(storage::Digest::bytes);

// A layer's file among those of a model.
inline std::string shard_file_name(std::string_view layer) {
  return std::string(layer) + ".safetensors";
}

// One of u, v, w: its tensor, where it is in an expert's record in bytes, and the width of one
// neuron's in elements.
struct ShardPart {
  std::string_view name;
  std::size_t at, bytes;
  std::uint64_t width;
};
std::vector<ShardPart> parts_of(const kernels::ExpertLayout& layout);

// The experts of a page that exist: those left of the generation's last column.
struct PageExperts {
  PageExperts(const PoolOptions& pool, const Generation& g, std::uint32_t page) {
    const std::uint32_t tiles = pool.tiles(g.cols);
    const std::uint64_t column =
        std::uint64_t{page % tiles} * static_cast<std::uint64_t>(pool.tile());
    first = std::uint64_t{page / tiles} * g.cols + column;
    count = std::min<std::uint64_t>(static_cast<std::uint64_t>(pool.tile()), g.cols - column);
  }
  std::uint64_t first;  // row by row within the generation
  std::uint64_t count;
};

// The tensors of a shard file, in the order of their bytes.
std::vector<storage::TensorSpec> specs_of(const PoolOptions& pool, const Generation& g,
                                          std::uint64_t written,
                                          const PeerImpl::RouterTensors& router);

}  // namespace perennial
