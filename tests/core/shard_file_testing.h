// SPDX-License-Identifier: Apache-2.0
// Helpers of the shard file tests: layers to export from and import into, and their comparison.
#pragma once

#include <filesystem>
#include <fstream>

#include "core/core_testing.h"
#include "perennial/core/shard_file.h"
#include "perennial/storage/safetensors.h"
#include "storage/store_testing.h"
#include "support/store_wrapper.h"

namespace perennial::testing {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// Two frozen generations; pages of both that never trained. The second is 5 x 11 of tiles of 2, its
// columns came in two blocks.
inline std::unique_ptr<PeerImpl> learnt(const PeerOptions& options,
                                        storage::PageStore* store = nullptr) {
  auto layer = std::make_unique<PeerImpl>(options, store, 0);
  layer->grow();
  SparseOptimizer adam(layer->pool(), {});
  train(*layer, adam, 2, 1, 2);
  layer->freeze();
  layer->grow(5, 7);
  train(*layer, adam, 1, 2, 2);
  layer->grow_columns(4);
  layer->unmask();
  train(*layer, adam, 1, 3, 2);
  layer->freeze();
  return layer;
}

// A layer of the same shape, of another size and seed, with a frozen generation of its own.
inline std::unique_ptr<PeerImpl> other(PeerOptions options, storage::PageStore* store = nullptr,
                                       std::int64_t budget_bytes = 0) {
  options.rows = 3;
  options.cols = 20;
  options.seed = 99;
  auto layer = std::make_unique<PeerImpl>(options, store, budget_bytes);
  layer->grow();
  SparseOptimizer adam(layer->pool(), {});
  train(*layer, adam, 1, 7, 2);
  layer->freeze();
  return layer;
}

// Generation a of one layer is generation b of another one, in all but its place.
inline void expect_same(PeerImpl& one, std::uint32_t a, PeerImpl& two, std::uint32_t b) {
  const Generation &g = one.pool().generation(a), &h = two.pool().generation(b);
  EXPECT_EQ(h.rows, g.rows);
  EXPECT_EQ(h.cols, g.cols);
  EXPECT_EQ(h.state, GenerationState::frozen);
  EXPECT_TRUE(same_values(one.pool().experts_at(ids_of(g)), two.pool().experts_at(ids_of(h))));
  const at::Tensor x = inputs(77, 32);
  EXPECT_TRUE(same_bits(evaluate(one, x, a), evaluate(two, x, b)));
  const PeerImpl::Retrieval here = one.retrieve(x, a), there = two.retrieve(x, b);
  const std::int64_t moved =
      kernels::expert_id(h.first_row, 0) - kernels::expert_id(g.first_row, 0);
  EXPECT_TRUE(same_bits(here.ids + moved, there.ids));
  EXPECT_TRUE(same_bits(here.weights, there.weights));
  EXPECT_EQ(shard_content_digest(one, a), shard_content_digest(two, b));
  EXPECT_EQ(one.pool().written_pages(a).size(), two.pool().written_pages(b).size());
  EXPECT_TRUE(two.frozen_intact());
}

class ShardFile : public ::testing::Test {
 protected:
  fs::path path(const std::string& name = "shard") const {
    return folder.path() / (name + ".safetensors");
  }
  // Importing throws an E, and leaves a layer that commits what it would have committed.
  template <class E = DataError>
  std::string refusal(PeerImpl& layer) const {
    const std::size_t generations = layer.pool().generations().size();
    const std::size_t routers = layer.children().size();
    const storage::Digest before = state_of(layer);
    std::string message = message_of<E>([&] { import_shard(layer, path()); });
    EXPECT_EQ(layer.pool().generations().size(), generations);
    EXPECT_EQ(layer.children().size(), routers);
    EXPECT_EQ(state_of(layer), before);
    return message;
  }
  // The digest of a first commit of everything that would be in the next one.
  static storage::Digest state_of(PeerImpl& layer) {
    storage::CommitRequest request;
    layer.add_to_commit(request);
    const auto store = storage::make_memory_store();
    const storage::Digest digest = value_or_throw(store->commit(request)).state_digest;
    layer.commit_failed();  // its own store has nothing of this
    return digest;
  }
  std::string bytes() const {
    std::ifstream file(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void overwrite(const std::string& bytes) const {
    std::ofstream(path(), std::ios::binary) << bytes;
  }
  // Replaces text in the header by text of the same length.
  void replace(const std::string& from, const std::string& to) const {
    ASSERT_EQ(from.size(), to.size());
    std::string text = bytes();
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    overwrite(text.replace(at, from.size(), to));
  }

  storage::testing::TempFolder folder;
};

}  // namespace perennial::testing
