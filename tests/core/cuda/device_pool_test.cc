// SPDX-License-Identifier: Apache-2.0
// A pool on a device and its pages: loading, committing what changed and no more, resuming.
#include <memory>
#include <string>
#include <vector>

#include "device_testing.h"
#include "perennial/storage/memory_store.h"

namespace perennial::cuda {
namespace {

using testing::commit;
using testing::ids_of;
using testing::inputs;
using testing::message_of;
using testing::same_values;
using testing::small_options;

class DevicePoolTest : public DeviceTest {};

TEST_F(DevicePoolTest, ResumesFromACommitToTheBit) {
  const auto whole = storage::make_memory_store(), parts = storage::make_memory_store();
  const auto run = [](PeerImpl& peer, SparseOptimizer& experts, int first, int last) {
    for (int i = first; i < last; ++i) train_on_device(peer, experts, 1, 10u + i);
  };
  {
    const std::shared_ptr<PeerImpl> peer = on_device(small_options());
    SparseOptimizer experts(peer->pool(), {});
    run(*peer, experts, 0, 6);
    commit(*whole, *peer);
  }
  {
    auto peer = std::make_shared<PeerImpl>(small_options(), parts.get(), 0);
    peer->grow();
    place_layer(*peer, device_under_test());
    SparseOptimizer experts(peer->pool(), {});
    run(*peer, experts, 0, 3);
    commit(*parts, *peer);
    run(*peer, experts, 3, 4);  // lost
  }
  const std::shared_ptr<PeerImpl> peer = PeerImpl::load(*parts, 0);
  place_layer(*peer, device_under_test());
  SparseOptimizer experts(peer->pool(), {});
  run(*peer, experts, 3, 6);
  commit(*parts, *peer);
  EXPECT_EQ(content_of(*parts), content_of(*whole));
}

TEST_F(DevicePoolTest, CommitsThePagesOfTouchedExpertsOnly) {
  PeerOptions options = small_options();
  options.rows = 40;
  options.cols = 40;
  const std::shared_ptr<PeerImpl> peer = on_device(options);
  SparseOptimizer experts(peer->pool(), {});
  storage::CommitRequest before;
  peer->add_to_commit(before);
  peer->committed();
  EXPECT_TRUE(before.pages.empty());
  testing::backward(*peer, to_device(inputs(1)));
  const at::Tensor ids = peer->pool().compact_gradient().ids.cpu();
  experts.step();
  std::set<std::pair<std::uint32_t, std::uint32_t>> pages;
  const auto tile = static_cast<std::uint32_t>(peer->pool().options().tile());
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const std::int64_t id = ids.const_data_ptr<std::int64_t>()[i];
    pages.insert({kernels::row_of(id), kernels::col_of(id) / tile});
  }
  storage::CommitRequest request;
  peer->add_to_commit(request);
  EXPECT_EQ(request.pages.size(), 2 * pages.size()) << "weights and state";
  peer->committed();
  storage::CommitRequest after;
  peer->add_to_commit(after);
  EXPECT_TRUE(after.pages.empty());
  peer->committed();
}

TEST_F(DevicePoolTest, StagingInPiecesChangesNothing) {
  for (const kernels::WeightType type : {kernels::WeightType::f32, kernels::WeightType::bf16}) {
    PeerOptions options = small_options();
    options.dtype = type;
    const std::shared_ptr<PeerImpl> a = on_device(options);
    const auto b = std::make_shared<PeerImpl>(options);
    const auto experts = std::make_shared<DevicePool>(b->pool(), device_under_test(), 1);
    b->pool().place(experts);
    b->compute_with(std::make_shared<DeviceLayer>(experts));
    SparseOptimizer for_a(a->pool(), {}), for_b(b->pool(), {});
    train_on_device(*a, for_a, 3, 1);
    train_on_device(*b, for_b, 3, 1);
    const auto ids = ids_of(a->pool().generation(0));
    EXPECT_TRUE(same_values(a->pool().experts_at(ids), b->pool().experts_at(ids)));
  }
}

TEST_F(DevicePoolTest, WorksWithinAMemoryBudgetOfTheHost) {
  const auto limited = storage::make_memory_store(), whole = storage::make_memory_store();
  const auto run = [](storage::PageStore& store, std::int64_t budget) {
    PeerImpl peer(small_options(), &store, budget);
    peer.grow();
    place_layer(peer, device_under_test());
    SparseOptimizer experts(peer.pool(), {});
    train_on_device(peer, experts, 4, 1);
    commit(store, peer);
    train_on_device(peer, experts, 2, 2);
    commit(store, peer);
  };
  run(*limited, 8 * (256 + 2 * (2 * 32 + 16) * 4));
  run(*whole, 0);
  EXPECT_EQ(content_of(*limited), content_of(*whole));
}

TEST_F(DevicePoolTest, RefusesStateOfAnotherSize) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  SparseOptimizer adam(peer->pool(), {});
  train_on_device(*peer, adam, 1, 1);
  EXPECT_THROW(SparseOptimizer(peer->pool(), {.algorithm = SparseAlgorithm::sgd}), InvalidOptions);
}

TEST_F(DevicePoolTest, TakesInForeignGenerations) {
  const std::shared_ptr<PeerImpl> from = on_device(small_options()),
                                  to = on_device(small_options());
  SparseOptimizer experts(from->pool(), {});
  train_on_device(*from, experts, 2, 1);
  from->freeze();
  to->freeze();
  const Generation& learnt = from->pool().generation(0);
  const ForeignGeneration content{learnt.rows, learnt.cols, learnt.recipe,
                                  from->pool().written_pages(0),
                                  [&](std::uint32_t page, std::span<std::byte> payload) {
                                    from->pool().read_page(0, page, payload);
                                  }};
  to->add_frozen(content, from->router_tensors(0));
  const at::Tensor x = to_device(inputs(3));
  const torch::NoGradGuard no_grad;
  EXPECT_TRUE(testing::same_bits(to->forward(x, 1).cpu(), from->forward(x, 0).cpu()));
}

}  // namespace
}  // namespace perennial::cuda
