// SPDX-License-Identifier: Apache-2.0
// Every update rule: the same bits by every route, thread count, page size and budget, and through
// growth, freezing, commits and resuming.
#include <map>

#include "core/core_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;

class EveryRule : public ::testing::TestWithParam<SparseOptimizerOptions> {};

// 512 experts, of which a step of 150 tokens touches most: threads have something to share.
PeerOptions wider_options() {
  PeerOptions options = small_options();
  options.rows = 16;
  options.cols = 32;
  options.glu = true;
  return options;
}
constexpr std::int64_t kTokens = 150;

std::vector<std::int64_t> all_experts(PeerImpl& peer) {
  std::vector<std::int64_t> ids;
  for (const Generation& generation : peer.pool().generations()) {
    const auto more = ids_of(generation);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

ExpertValues trained(const PeerOptions& layer, const SparseOptimizerOptions& rule,
                     std::int64_t tokens = kTokens) {
  PeerImpl peer(layer);
  SparseOptimizer optimizer(peer.pool(), rule);
  train(peer, optimizer, 4, 1, tokens);
  return peer.pool().experts_at(all_experts(peer));
}

// What the store holds: the digest of every page, weights and state.
std::map<std::string, storage::Digest> pages_of(const storage::PageReader& store) {
  std::map<std::string, storage::Digest> pages;
  for (const storage::PageId& id : store.pages()) {
    pages[to_string(id)] = value_or_throw(store.page_digest(id));
  }
  return pages;
}

TEST_P(EveryRule, StepEqualsStepOfTheCompactGradient) {
  for (const bool glu : {false, true}) {
    PeerOptions layer = small_options();
    layer.glu = glu;
    PeerImpl a(layer), b(layer);
    SparseOptimizer fused(a.pool(), GetParam()), compact(b.pool(), GetParam());
    for (std::uint64_t step = 0; step < 4; ++step) {
      for (PeerImpl* peer : {&a, &b}) {
        backward(*peer, inputs(step, 16));
        backward(*peer, inputs(step + 50, 16));
      }
      fused.step();
      compact.step(b.pool().compact_gradient());
      EXPECT_EQ(b.pool().compact_gradient().ids.numel(), 0) << "gradients outlive their step";
      EXPECT_TRUE(
          same_values(a.pool().experts_at(ids_of(0, 8, 8)), b.pool().experts_at(ids_of(0, 8, 8))));
    }
  }
}

TEST_P(EveryRule, ThreadCountChangesNoBit) {
  const int before = at::get_num_threads();
  std::vector<ExpertValues> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    results.push_back(trained(wider_options(), GetParam()));
  }
  at::set_num_threads(before);
  EXPECT_TRUE(same_values(results[1], results[0]));
  EXPECT_TRUE(same_values(results[2], results[0]));
}

TEST_P(EveryRule, PageSizeChangesNoBit) {
  const ExpertValues expected = trained(wider_options(), GetParam());
  for (const std::int64_t bytes : {1, 1000, 65536}) {
    PeerOptions layer = wider_options();
    layer.page_bytes = bytes;
    EXPECT_TRUE(same_values(trained(layer, GetParam()), expected)) << bytes << " bytes a page";
  }
}

TEST_P(EveryRule, BudgetChangesNoBit) {
  const ExpertValues expected = trained(wider_options(), GetParam(), 16);
  const auto store = storage::make_memory_store();
  // A page holds 2 experts of 32 floats, their state up to 80 floats each. A token takes 6 pages of
  // either kind; there is room for 8, more where state is smaller.
  PeerImpl peer(wider_options(), store.get(), std::int64_t{8} * 2 * (32 + 80) * 4);
  peer.grow();
  SparseOptimizer optimizer(peer.pool(), GetParam());
  train(peer, optimizer, 4, 1, 16);
  EXPECT_GT(peer.pool().counters().spilled, 0u) << "the budget must bite";
  EXPECT_TRUE(same_values(peer.pool().experts_at(all_experts(peer)), expected));
}

// Training that is committed, loaded, and goes on gives the pages of training that was not
// interrupted, also when the pool grows in between.
TEST_P(EveryRule, StateSurvivesCommitGrowthAndResuming) {
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  PeerImpl whole(small_options(), whole_store.get(), 0);
  whole.grow();
  auto part = std::make_shared<PeerImpl>(small_options(), store.get(), 0);
  part->grow();
  auto whole_optimizer = std::make_unique<SparseOptimizer>(whole.pool(), GetParam());
  auto part_optimizer = std::make_unique<SparseOptimizer>(part->pool(), GetParam());
  const auto resume = [&] {
    commit(*store, *part);
    part_optimizer.reset();
    part = PeerImpl::load(*store, 0);
    part_optimizer = std::make_unique<SparseOptimizer>(part->pool(), GetParam());
  };
  const auto both = [&](const std::function<void(PeerImpl&, SparseOptimizer&)>& work) {
    work(whole, *whole_optimizer);
    work(*part, *part_optimizer);
  };
  both([](PeerImpl& peer, SparseOptimizer& o) { train(peer, o, 3, 1); });
  resume();
  both([](PeerImpl& peer, SparseOptimizer& o) { train(peer, o, 2, 2); });
  both([](PeerImpl& peer, SparseOptimizer&) {
    peer.grow_columns(4);
    peer.unmask();
  });
  both([](PeerImpl& peer, SparseOptimizer& o) { train(peer, o, 2, 3); });
  resume();
  both([](PeerImpl& peer, SparseOptimizer& o) {
    train(peer, o, 2, 4);
    peer.freeze();
    peer.grow();
    train(peer, o, 2, 5);
  });
  resume();
  both([](PeerImpl& peer, SparseOptimizer& o) { train(peer, o, 2, 6); });
  commit(*whole_store, whole);
  commit(*store, *part);
  EXPECT_EQ(pages_of(*store), pages_of(*whole_store));
  const bool has_state = whole.pool().state_floats() > 0;
  std::size_t state_pages = 0;
  for (const storage::PageId& id : store->pages()) {
    if (id.kind != storage::PageKind::state) continue;
    ++state_pages;
    EXPECT_GE(id.row, part->pool().generation(1).first_row) << "state of a frozen generation";
  }
  EXPECT_EQ(state_pages > 0, has_state);
}

using enum SparseAlgorithm;
INSTANTIATE_TEST_SUITE_P(
    Rules, EveryRule,
    ::testing::Values(SparseOptimizerOptions{.algorithm = sgd, .lr = 0.03, .weight_decay = 0.01},
                      SparseOptimizerOptions{.algorithm = sgd, .lr = 0.03, .momentum = 0.9},
                      SparseOptimizerOptions{
                          .algorithm = sgd, .lr = 0.03, .momentum = 0.9, .nesterov = true},
                      SparseOptimizerOptions{.algorithm = adam, .lr = 0.03, .weight_decay = 0.01},
                      SparseOptimizerOptions{.algorithm = adamw, .lr = 0.03, .weight_decay = 0.01},
                      SparseOptimizerOptions{.algorithm = rowwise_adagrad, .lr = 0.1}),
    [](const auto& info) {
      std::string name(enum_name(info.param.algorithm));
      if (info.param.momentum > 0) name += info.param.nesterov ? "_nesterov" : "_momentum";
      return name;
    });

}  // namespace
}  // namespace perennial
