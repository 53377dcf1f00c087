// SPDX-License-Identifier: Apache-2.0
// Paging is invisible: any legal budget gives the same bits; failures are named and leave the pool
// usable.
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <tuple>

#include "core/core_testing.h"
#include "support/store_wrapper.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using storage::PageKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

// 256 pages of 2 experts; a token retrieves at most 6.
PeerOptions paged_options(Routing routing) {
  PeerOptions options = small_options();
  options.rows = 32;
  options.cols = 16;
  options.routing = routing;
  return options;
}

constexpr std::int64_t kSlots = 6;                 // heads * top_k
constexpr std::int64_t kWeightsPage = 2 * 32 * 4;  // tile * stride * sizeof(float)
constexpr std::int64_t kAdamPage = 2 * (2 * 32 + 16) * 4;

std::int64_t smallest_budget(SparseAlgorithm algorithm) {
  return kSlots * (kWeightsPage + (algorithm == SparseAlgorithm::adam ? kAdamPage : 0));
}

struct Outcome {
  std::vector<storage::Digest> digests;  // of the store after each commit
  std::vector<at::Tensor> outputs;       // of each generation, at the end
  PagerCounters counters;
};

// Learns three generations with commits between and within, reopening after the second.
Outcome learn(storage::PageStore& store, Routing routing, SparseAlgorithm algorithm,
              std::int64_t budget) {
  Outcome outcome;
  const at::Tensor x = inputs(99, 32);
  SparseOptimizerOptions options;
  options.algorithm = algorithm;
  options.lr = 0.05;
  auto peer = std::make_shared<PeerImpl>(paged_options(routing), &store, budget);
  peer->grow();
  for (std::uint64_t g = 0; g < 3; ++g) {
    {
      SparseOptimizer experts(peer->pool(), options);
      peer->unmask();
      train(*peer, experts, 2, 10 * g + 1);
      outcome.digests.push_back(commit(store, *peer).state_digest);
      train(*peer, experts, 2, 10 * g + 2);
      if (g == 1) {
        peer->grow_columns(3);
        peer->unmask();
        train(*peer, experts, 1, 10 * g + 3);
      }
    }
    peer->freeze();
    outcome.digests.push_back(commit(store, *peer).state_digest);
    const PagerCounters counters = peer->pool().counters();
    outcome.counters.evicted += counters.evicted;
    outcome.counters.spilled += counters.spilled;
    outcome.counters.unspilled += counters.unspilled;
    outcome.counters.read += counters.read;
    outcome.counters.peak_bytes = std::max(outcome.counters.peak_bytes, counters.peak_bytes);
    if (g == 1) peer = PeerImpl::load(store, budget);
    if (g < 2) peer->grow();
  }
  EXPECT_TRUE(peer->frozen_intact());
  const std::shared_ptr<PeerImpl> reopened = PeerImpl::load(store, budget);
  for (std::uint32_t g = 0; g < 3; ++g) {
    const bool isolated = routing == Routing::isolated;
    outcome.outputs.push_back(isolated ? evaluate(*peer, x, g) : evaluate(*peer, x));
    EXPECT_TRUE(same_bits(isolated ? evaluate(*reopened, x, g) : evaluate(*reopened, x),
                          outcome.outputs.back()))
        << "after reopening";
  }
  return outcome;
}

// What answering through the first generation moves, with `later` generations after it and a budget
// that holds the first (in what order pages leave a smaller one depends on when prefetches end).
PagerCounters cost_of_answering(std::uint32_t later) {
  const auto store = storage::make_memory_store();
  const std::int64_t budget = 300 * kWeightsPage;
  PeerImpl peer(paged_options(Routing::isolated), store.get(), budget);
  for (std::uint32_t g = 0; g <= later; ++g) {
    peer.grow();
    SparseOptimizerOptions options;
    options.algorithm = SparseAlgorithm::sgd;
    SparseOptimizer experts(peer.pool(), options);
    train(peer, experts, 2, g);
    peer.freeze();
    commit(*store, peer);
  }
  const std::shared_ptr<PeerImpl> reopened = PeerImpl::load(*store, budget);
  evaluate(*reopened, inputs(99, 64), 0);
  return reopened->pool().counters();
}

TEST(AnsweringThroughAGeneration, CostsNoMoreForLaterGenerations) {
  const PagerCounters alone = cost_of_answering(0);
  EXPECT_GT(alone.read, 0u);
  EXPECT_GT(alone.initialised, 0u);
  for (const std::uint32_t later : {1u, 5u}) {
    const PagerCounters among_others = cost_of_answering(later);
    EXPECT_EQ(among_others.read, alone.read) << later;
    EXPECT_EQ(among_others.read_bytes, alone.read_bytes) << later;
    EXPECT_EQ(among_others.initialised, alone.initialised) << later;
    EXPECT_EQ(among_others.evicted, 0u) << later;
    EXPECT_EQ(among_others.peak_bytes, alone.peak_bytes) << later;
  }
}

class Paging : public ::testing::TestWithParam<std::tuple<Routing, SparseAlgorithm>> {};

TEST_P(Paging, IsInvisible) {
  const auto [routing, algorithm] = GetParam();
  const auto whole_store = storage::make_memory_store();
  const Outcome whole = learn(*whole_store, routing, algorithm, 0);
  EXPECT_EQ(whole.counters.evicted, 0u);
  const std::int64_t smallest = smallest_budget(algorithm);
  for (const std::int64_t budget : {smallest, 2 * smallest + 100}) {
    SCOPED_TRACE(budget);
    const auto store = storage::make_memory_store();
    const Outcome paged = learn(*store, routing, algorithm, budget);
    // The test says something only if the pool is much larger than the budget and pages moved.
    const std::int64_t page = kWeightsPage + (algorithm == SparseAlgorithm::adam ? kAdamPage : 0);
    EXPECT_GE(256 * page, 8 * budget);
    EXPECT_LE(paged.counters.peak_bytes, static_cast<std::uint64_t>(budget));
    EXPECT_GT(paged.counters.evicted, 100u);
    EXPECT_GT(paged.counters.spilled, 100u);
    EXPECT_GT(paged.counters.unspilled, 20u);
    EXPECT_GT(paged.counters.read, 20u);
    for (std::size_t i = 0; i < whole.digests.size(); ++i) {
      EXPECT_EQ(paged.digests[i].hex(), whole.digests[i].hex()) << "commit " << i;
    }
    for (std::size_t g = 0; g < 3; ++g) {
      EXPECT_TRUE(same_bits(paged.outputs[g], whole.outputs[g])) << "generation " << g;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Paging,
                         ::testing::Combine(::testing::Values(Routing::isolated, Routing::shared),
                                            ::testing::Values(SparseAlgorithm::adam,
                                                              SparseAlgorithm::sgd)),
                         [](const auto& info) {
                           return std::string(enum_name(std::get<0>(info.param))) + "_" +
                                  std::string(enum_name(std::get<1>(info.param)));
                         });

// A commit in flight holds the state of its beginning, whatever training, growth and freezing do
// before the store takes its pages; the next commit holds the rest.
TEST(PagingCommit, InFlightHoldsTheStateOfItsBeginning) {
  const std::int64_t smallest = smallest_budget(SparseAlgorithm::adam);
  for (const std::int64_t budget : {smallest, 3 * smallest, std::int64_t{0}}) {
    SCOPED_TRACE(budget);
    for (const bool fails : {false, true}) {
      const auto sync_store = storage::make_memory_store(), store = storage::make_memory_store();
      PeerImpl sync(paged_options(Routing::isolated), sync_store.get(), budget);
      PeerImpl peer(paged_options(Routing::isolated), store.get(), budget);
      sync.grow();
      peer.grow();
      SparseOptimizer adam_sync(sync.pool(), {}), adam(peer.pool(), {});
      train(sync, adam_sync, 3, 1);
      train(peer, adam, 3, 1);
      const storage::Digest at_start = commit(*sync_store, sync).state_digest;
      storage::CommitRequest request;
      peer.add_to_commit(request);
      const auto go_on = [](PeerImpl& layer, SparseOptimizer& experts) {
        train(layer, experts, 2, 2);
        layer.grow_columns(3);
        layer.unmask();
        train(layer, experts, 2, 3);
        layer.freeze();
        layer.grow();
        train(layer, experts, 1, 4);
      };
      go_on(sync, adam_sync);
      go_on(peer, adam);
      EXPECT_GT(peer.pool().counters().copied_on_write + peer.pool().counters().spilled, 0u);
      if (fails) {
        request.snapshot = "not a name";
        ASSERT_FALSE(store->commit(request).ok());
        peer.commit_failed();
      } else {
        const auto info = store->commit(request);
        ASSERT_TRUE(info.ok()) << info.status().to_string();
        EXPECT_EQ(info->state_digest.hex(), at_start.hex());
        peer.committed();
      }
      EXPECT_EQ(commit(*store, peer).state_digest.hex(),
                commit(*sync_store, sync).state_digest.hex());
      const auto loaded = PeerImpl::load(*store, budget);
      for (std::uint32_t g = 0; g < 2; ++g) {
        EXPECT_TRUE(
            same_bits(evaluate(*loaded, inputs(99, 32), g), evaluate(sync, inputs(99, 32), g)));
      }
      const std::uint64_t limit = static_cast<std::uint64_t>(budget);
      EXPECT_TRUE(budget == 0 || peer.pool().counters().peak_bytes <= limit);
    }
  }
}

TEST(PagingCommit, AnOlderStateServesBesideTheCurrentOne) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(paged_options(Routing::isolated), store.get(), 0);
  peer.grow();
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 2, 1);
  const std::uint64_t commit_number = commit(*store, peer).commit;
  const at::Tensor x = inputs(99, 32), before = evaluate(peer, x);
  train(peer, adam, 2, 2);
  commit(*store, peer);
  const auto older = store->at(commit_number);
  ASSERT_TRUE(older.ok()) << older.status().to_string();
  const auto served = PeerImpl::load(**older, smallest_budget(SparseAlgorithm::adam));
  EXPECT_TRUE(same_bits(evaluate(*served, x), before));
  EXPECT_FALSE(same_bits(evaluate(peer, x), before));
}

TEST(PagingPrefetch, TokensAheadAreLoadedWhileTheseAreComputed) {
  const auto store = storage::make_memory_store();
  PeerImpl peer(paged_options(Routing::isolated), store.get(),
                6 * smallest_budget(SparseAlgorithm::sgd));
  PeerImpl whole(paged_options(Routing::isolated));
  peer.grow();
  const at::Tensor x = inputs(99, 256), expected = evaluate(whole, x);
  // A page counts when the background was faster than the tokens before it: sooner or later.
  for (int round = 0; round < 1000 && peer.pool().counters().prefetched == 0; ++round) {
    ASSERT_TRUE(same_bits(evaluate(peer, x), expected));
  }
  EXPECT_GT(peer.pool().counters().prefetched, 0u);
  EXPECT_LE(peer.pool().counters().peak_bytes,
            static_cast<std::uint64_t>(peer.pool().budget_bytes()));
}

TEST(PagingBudget, OnePageTooSmallIsRefusedWithTheFigures) {
  const auto store = storage::make_memory_store();
  const PeerOptions options = paged_options(Routing::isolated);
  const std::int64_t weights_only = kSlots * kWeightsPage;
  EXPECT_THAT(
      message_of<InvalidOptions>(
          [&] { PeerImpl(options, store.get(), weights_only - 1).require_budget(); }),
      AllOf(HasSubstr(std::to_string(weights_only - 1)), HasSubstr("6 pages"),
            HasSubstr(std::to_string(kWeightsPage)), HasSubstr(std::to_string(weights_only))));
  const std::int64_t with_state = smallest_budget(SparseAlgorithm::adam);
  PeerImpl peer(options, store.get(), with_state - 1);  // enough to predict, not to train
  peer.grow();
  EXPECT_NO_THROW(evaluate(peer, inputs(1)));
  EXPECT_NO_THROW(peer.require_budget());
  const SparseOptimizer adam(peer.pool(), {});
  EXPECT_THAT(message_of<InvalidOptions>([&] { peer.require_budget(); }),
              AllOf(HasSubstr(std::to_string(with_state - 1)), HasSubstr(std::to_string(kAdamPage)),
                    HasSubstr(std::to_string(with_state))));
  EXPECT_NO_THROW(evaluate(peer, inputs(1, 64))) << "weights alone still fit";
  commit(*store, peer);
  EXPECT_THROW((void)PeerImpl::load(*store, weights_only - 1), InvalidOptions);
  EXPECT_NE(PeerImpl::load(*store, with_state), nullptr);
}

TEST(PagingBudget, AttachingStateMakesRoom) {
  // Frames for weights alone fill the budget before an optimizer asks for its share.
  const auto store = storage::make_memory_store();
  const std::int64_t budget = 3 * smallest_budget(SparseAlgorithm::adam);
  PeerImpl peer(paged_options(Routing::isolated), store.get(), budget);
  PeerImpl whole(paged_options(Routing::isolated));
  peer.grow();
  const at::Tensor x = inputs(99, 64);
  EXPECT_TRUE(same_bits(evaluate(peer, x), evaluate(whole, x)));
  SparseOptimizer adam(peer.pool(), {}), adam_whole(whole.pool(), {});
  train(peer, adam, 2, 1);
  train(whole, adam_whole, 2, 1);
  EXPECT_TRUE(same_bits(evaluate(peer, x), evaluate(whole, x)));
  EXPECT_LE(peer.pool().counters().resident_bytes, static_cast<std::uint64_t>(budget));
  EXPECT_LE(peer.pool().counters().peak_bytes, static_cast<std::uint64_t>(budget));
  // Another algorithm's state is not thrown away in silence.
  EXPECT_THAT(message_of<InvalidOptions>(
                  [&] { SparseOptimizer(peer.pool(), {.algorithm = SparseAlgorithm::sgd}); }),
              AllOf(HasSubstr("80"), HasSubstr("0")));
}

// A committed, trained layer, opened again through a wrapper with a small budget.
class PagerFailure : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = storage::make_memory_store();
    PeerImpl peer(paged_options(Routing::isolated), store_.get(), 0);
    peer.grow();
    SparseOptimizer adam(peer.pool(), {});
    train(peer, adam, 6, 1, 64);
    commit(*store_, peer);
    expected_ = evaluate(peer, x_);
    values_ = peer.pool().experts_at(ids_of(0, 32, 16));
    wrapper_ = std::make_unique<StoreWrapper>(*store_);
    peer_ = PeerImpl::load(*wrapper_, 2 * smallest_budget(SparseAlgorithm::adam));
    retrieved_ = peer_->retrieve(x_, 0).ids.view(-1)[17].item<std::int64_t>();
  }
  storage::PageId page_of(std::int64_t id, PageKind kind) const {
    return {kind, 0, kernels::row_of(id), kernels::col_of(id) / 2};
  }
  void expect_usable() {
    EXPECT_TRUE(same_bits(evaluate(*peer_, x_), expected_));
    EXPECT_TRUE(same_values(peer_->pool().experts_at(ids_of(0, 32, 16)), values_));
  }

  const at::Tensor x_ = inputs(99, 64);
  std::unique_ptr<storage::PageStore> store_;
  std::unique_ptr<StoreWrapper> wrapper_;
  std::shared_ptr<PeerImpl> peer_;
  at::Tensor expected_;
  ExpertValues values_;
  std::int64_t retrieved_ = 0;
};

TEST_F(PagerFailure, UnreadablePageIsNamedAndNeverReplaced) {
  const storage::PageId page = page_of(retrieved_, PageKind::weights);
  ASSERT_TRUE(store_->contains(page));
  wrapper_->failing_page = page;
  for (int i = 0; i < 3; ++i) {  // again and again: no attempt turns it into initial values
    EXPECT_THAT(message_of<StorageError>([&] { evaluate(*peer_, x_); }),
                HasSubstr(storage::to_string(page)));
    EXPECT_THAT(message_of<StorageError>([&] { (void)peer_->pool().experts_at({retrieved_}); }),
                HasSubstr(storage::to_string(page)));
  }
  // What does not need the page goes on.
  const std::int64_t other = kernels::expert_id(kernels::row_of(retrieved_) ^ 1, 0);
  EXPECT_NO_THROW((void)peer_->pool().experts_at({other}));
  wrapper_->failing_page.reset();
  expect_usable();
  EXPECT_GT(wrapper_->reads, 0);
}

TEST_F(PagerFailure, UnreadableStateStopsTheStepAndKeepsTheGradients) {
  PeerImpl whole(paged_options(Routing::isolated));
  SparseOptimizer adam(peer_->pool(), {});
  const storage::PageId page = page_of(retrieved_, PageKind::state);
  ASSERT_TRUE(store_->contains(page));
  wrapper_->failing_page = page;
  const CompactGradient one{at::full({1}, retrieved_, at::kLong), at::ones({1, 18})};
  EXPECT_THAT(message_of<StorageError>([&] { adam.step(one); }),
              HasSubstr(storage::to_string(page)));
  wrapper_->failing_page.reset();
  expect_usable();  // the failed step changed nothing
  const auto unbroken = PeerImpl::load(*store_, 0);
  SparseOptimizer reference(unbroken->pool(), {});
  adam.step(one);
  reference.step(one);
  EXPECT_TRUE(same_values(peer_->pool().experts_at({retrieved_}),
                          unbroken->pool().experts_at({retrieved_})));
}

TEST_F(PagerFailure, NowhereToSpillIsAnErrorThatLosesNothing) {
  const auto unbroken = PeerImpl::load(*store_, 0);
  SparseOptimizer adam(peer_->pool(), {}), reference(unbroken->pool(), {});
  wrapper_->scratch = "/nonexistent/perennial";
  const at::Tensor x = inputs(5, 64);
  peer_->train();
  unbroken->train();
  // More dirty pages than frames: something must be spilled.
  const std::vector<std::int64_t> first = {0, 1}, many = ids_of(0, 4, 16);
  adam.step({at::tensor(first), at::ones({2, 18})});
  const std::string message = message_of<StorageError>([&] {
    adam.step({at::tensor(many), normal_tensor({64, 18}, 3)});
  });
  EXPECT_THAT(message, AllOf(HasSubstr("page pool 0 row"), HasSubstr("/nonexistent/perennial")));
  // The dirty page that could not leave is still what it was.
  reference.step({at::tensor(first), at::ones({2, 18})});
  wrapper_->scratch.reset();
  EXPECT_EQ(peer_->pool().experts_at(ids_of(31, 1, 16)).u.size(0), 16);
  const storage::CommitInfo info = commit(*wrapper_, *peer_);
  EXPECT_GT(info.pages_written, 0u);
  EXPECT_NO_THROW(evaluate(*peer_, x_));
}

// Overwrites every byte of every unlinked file of this process in `folder`.
int damage_spill_files(const std::filesystem::path& folder) {
  int damaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (!target.starts_with(folder.string()) || !target.ends_with("(deleted)")) continue;
    const int fd = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) continue;
    const off_t size = ::lseek(fd, 0, SEEK_END);
    const std::string junk(static_cast<std::size_t>(size), 'x');
    if (size > 0 && ::pwrite(fd, junk.data(), junk.size(), 0) == size) ++damaged;
    ::close(fd);
  }
  return damaged;
}

TEST_F(PagerFailure, DamagedSpillIsNamedAndNeverReplaced) {
  SparseOptimizer adam(peer_->pool(), {});
  const std::vector<std::int64_t> many = ids_of(0, 4, 16);
  adam.step({at::tensor(many), normal_tensor({64, 18}, 3)});
  ASSERT_GT(peer_->pool().counters().spilled, 0u);
  ASSERT_EQ(damage_spill_files(wrapper_->scratch_folder()), 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(message_of<StorageError>([&] { (void)peer_->pool().experts_at(many); }),
                AllOf(HasSubstr("weights page pool 0 row"), HasSubstr("spill")));
  }
  storage::CommitRequest request;
  peer_->add_to_commit(request);
  const auto before = store_->head()->commit;
  const auto result = wrapper_->commit(request);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("page pool 0 row"));
  EXPECT_EQ(store_->head()->commit, before);
}

}  // namespace
}  // namespace perennial
