// SPDX-License-Identifier: Apache-2.0
// bf16 experts: initial values, the fp32 master they train on, paging, freezing, what is refused.
#include "core/core_testing.h"
#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/optimizer.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

PeerOptions bf16_options() {
  PeerOptions options = small_options();
  options.dtype = kernels::WeightType::bf16;
  return options;
}

at::Tensor rounded(const at::Tensor& values) { return values.to(at::kBFloat16).to(at::kFloat); }

TEST(Bf16, StartsAsTheRecipeRounded) {
  for (const auto& [distribution, name] : enum_names(Distribution{})) {
    PeerOptions wide = small_options(), narrow = bf16_options();
    wide.distribution = narrow.distribution = distribution;
    wide.expert_width = narrow.expert_width = 2;
    PeerImpl exact(wide), peer(narrow);
    const ExpertValues a = exact.pool().experts_at(ids_of(0, 8, 8)),
                       b = peer.pool().experts_at(ids_of(0, 8, 8));
    EXPECT_TRUE(same_bits(b.u, rounded(a.u))) << name;
    EXPECT_TRUE(same_bits(b.v, rounded(a.v)));
    EXPECT_EQ(b.u.sizes(), (std::vector<std::int64_t>{64, 24}));
  }
  // 18 elements of 2 bytes take a line of 64 bytes: twice the experts a page.
  EXPECT_EQ(PeerImpl(bf16_options()).pool().options().tile(), 4);
  EXPECT_EQ(PeerImpl(small_options()).pool().options().tile(), 2);
}

// The update rule works on fp32 that only the optimizer knows; the weight is that, rounded.
TEST(Bf16, TrainsOnAnFp32Master) {
  for (const SparseAlgorithm algorithm : {SparseAlgorithm::adam, SparseAlgorithm::sgd}) {
    SCOPED_TRACE(enum_name(algorithm));
    const auto store = storage::make_memory_store();
    auto peer = std::make_shared<PeerImpl>(bf16_options(), store.get(), 0);
    peer->grow();
    const SparseOptimizerOptions options{.algorithm = algorithm, .lr = 1e-4, .weight_decay = 0.01};
    auto optimizer = std::make_unique<SparseOptimizer>(peer->pool(), options);
    const ExpertValues start = peer->pool().experts_at({5});
    std::vector<float> master(18), m(18), v(18);
    const at::Tensor first = at::cat({start.u, start.v}, 1);
    std::memcpy(master.data(), first.const_data_ptr<float>(), 18 * sizeof(float));
    at::Tensor expected;
    for (std::uint32_t step = 1; step <= 60; ++step) {
      const at::Tensor gradient = normal_tensor({1, 18}, step).abs() + 0.1;
      optimizer->step({at::full({1}, 5, at::kLong), gradient});
      const float* g = gradient.const_data_ptr<float>();
      if (algorithm == SparseAlgorithm::adam) {
        kernels::adam_update({options.lr, options.beta1, options.beta2, options.eps, 0.01}, step,
                             18, g, master.data(), m.data(), v.data());
      } else {
        kernels::sgd_update({options.lr, 0.01}, 18, g, master.data());
      }
      expected = rounded(at::from_blob(master.data(), {1, 18}).clone());
      const ExpertValues now = peer->pool().experts_at({5});
      ASSERT_TRUE(same_bits(at::cat({now.u, now.v}, 1), expected)) << "step " << step;
      if (step == 30) {  // the master comes back from the store
        commit(*store, *peer);
        peer = PeerImpl::load(*store, 0);
        optimizer = std::make_unique<SparseOptimizer>(peer->pool(), options);
      }
    }
    // One such step alone is lost in most weights; together they moved all.
    EXPECT_TRUE((expected != first).all().item<bool>());
  }
}

TEST(Bf16, TheBudgetChangesNoBit) {
  PeerOptions options = bf16_options();
  options.page_bytes = 64;  // an expert a page
  options.rows = options.cols = 16;
  options.expert_width = 2;
  std::vector<ExpertValues> learnt;
  std::vector<storage::Digest> digests;
  const std::int64_t page = 128 + (3 * 64 + 16) * 4;
  for (const std::int64_t budget : {std::int64_t{0}, 12 * page}) {
    const auto store = storage::make_memory_store();
    PeerImpl peer(options, store.get(), budget);
    peer.grow();
    SparseOptimizer adam(peer.pool(), {.lr = 0.01});
    peer.require_budget();
    train(peer, adam, 4, 1);
    commit(*store, peer);
    train(peer, adam, 2, 2);
    if (budget > 0) {
      EXPECT_GT(peer.pool().counters().spilled, 0u);
    }
    digests.push_back(peer.freeze());
    commit(*store, peer);
    for (const storage::PageId& id : store->pages()) {
      EXPECT_EQ(id.kind, storage::PageKind::weights) << "the master outlives the freeze";
      EXPECT_EQ(value_or_throw(store->page_shape(id)).dtype, storage::DType::bf16);
    }
    const std::shared_ptr<PeerImpl> loaded = PeerImpl::load(*store, budget);
    EXPECT_TRUE(loaded->frozen_intact());
    learnt.push_back(loaded->pool().experts_at(ids_of(0, 16, 16)));
    loaded->grow();
    SparseOptimizer sgd(loaded->pool(), {.algorithm = SparseAlgorithm::sgd});
    train(*loaded, sgd, 2, 3);
    EXPECT_TRUE(loaded->frozen_intact());
  }
  EXPECT_TRUE(same_values(learnt[0], learnt[1]));
  EXPECT_EQ(digests[0], digests[1]);
}

TEST(Bf16, PagesOfAnotherTypeAreRefused) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(small_options(), store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 1, 1);
  commit(*store, peer);
  PoolOptions options = peer.pool().options();
  options.dtype = kernels::WeightType::bf16;
  storage::CommitRequest request;
  Pool other(0, options, nullptr, 0);
  other.grow(8, 8, peer.pool().generation(0).recipe);
  other.add_to_commit(request);
  ASSERT_TRUE(store->commit(request).ok());
  EXPECT_THAT(message_of<DataError>([&] { (void)Pool::load(0, *store, 0); }),
              HasSubstr("32 f32, expected 4 experts of 32 bf16"));
  PeerOptions huge = bf16_options();
  huge.d_in = huge.d_out = 1024;
  huge.expert_width = 4096;
  EXPECT_THAT(message_of<InvalidOptions>([&] { PeerImpl{huge}; }),
              ::testing::AllOf(HasSubstr("expert_width 4096"), HasSubstr("4194304")));
}

}  // namespace
}  // namespace perennial
