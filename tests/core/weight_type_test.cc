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

// One fp32 expert under the same rule.
class Twin {
 public:
  Twin(const SparseOptimizerOptions& options, const at::Tensor& weights)
      : record_(32), scratch_(32) {
    args_.rule = {.algorithm = options.algorithm,
                  .lr = options.lr,
                  .momentum = options.momentum,
                  .weight_decay = options.weight_decay};
    args_.layout = {.d_in = 12, .d_out = 6};
    state_.resize(static_cast<std::size_t>(kernels::update_state_floats(args_.rule, args_.layout)));
    std::memcpy(record_.data(), weights.const_data_ptr<float>(), 18 * sizeof(float));
  }
  void step(const at::Tensor& gradient) {
    float* const frames[] = {record_.data(), state_.data()};
    const kernels::PageSpan weights{0, 1, 1, frames}, state{0, 1, 1, frames + 1};
    const std::int64_t id = 0;
    args_.weights = {{&weights, 1}, 1, 32};
    args_.state = {{&state, 1}, 1, static_cast<std::int64_t>(state_.size())};
    args_.ids = {&id, 1};
    args_.rows = gradient.const_data_ptr<float>();
    kernels::update_experts(args_, 0, 1, scratch_.data());
  }
  at::Tensor weights() { return at::from_blob(record_.data(), {1, 18}).clone(); }

 private:
  kernels::UpdateArgs args_;
  std::vector<float> record_, state_, scratch_;
};

// The update rule works on fp32 that only the optimizer knows; the weight is that, rounded.
TEST(Bf16, TrainsOnAnFp32Master) {
  for (const auto& [algorithm, name] : enum_names(SparseAlgorithm{})) {
    for (const double momentum : {0.0, 0.9}) {
      if (momentum > 0 && algorithm != SparseAlgorithm::sgd) continue;
      SCOPED_TRACE(::testing::Message() << name << ", momentum " << momentum);
      const auto store = storage::make_memory_store();
      auto peer = std::make_shared<PeerImpl>(bf16_options(), store.get(), 0);
      peer->grow();
      const SparseOptimizerOptions options{
          .algorithm = algorithm,
          .lr = algorithm == SparseAlgorithm::rowwise_adagrad ? 1e-3 : 1e-4,
          .momentum = momentum,
          .weight_decay = 0.01};
      auto optimizer = std::make_unique<SparseOptimizer>(peer->pool(), options);
      const ExpertValues start = peer->pool().experts_at({5});
      const at::Tensor first = at::cat({start.u, start.v}, 1);
      Twin twin(options, first);
      for (std::uint32_t step = 1; step <= 60; ++step) {
        const at::Tensor gradient = normal_tensor({1, 18}, step).abs() + 0.1;
        optimizer->step({at::full({1}, 5, at::kLong), gradient});
        twin.step(gradient);
        const ExpertValues now = peer->pool().experts_at({5});
        ASSERT_TRUE(same_bits(at::cat({now.u, now.v}, 1), rounded(twin.weights())))
            << "step " << step;
        if (step == 30) {  // the master comes back from the store
          commit(*store, *peer);
          peer = PeerImpl::load(*store, 0);
          optimizer = std::make_unique<SparseOptimizer>(peer->pool(), options);
        }
      }
      // One such step alone is lost in most weights; together they moved all.
      EXPECT_TRUE((rounded(twin.weights()) != first).all().item<bool>());
    }
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
