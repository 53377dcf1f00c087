// SPDX-License-Identifier: Apache-2.0
// Pools that share the memory for their pages: the same bits as with memory to spare, one commit,
// frames that are lent.
#include "perennial/core/page_memory.h"

#include <thread>

#include "core/core_testing.h"
#include "support/store_wrapper.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint32_t kPoolRows = 16, kPoolCols = 8;

// Pages of 2 experts of 32 floats, or of 3 of 48.
PoolOptions sized_options(bool large) {
  PoolOptions options;
  options.d_in = large ? 20 : 12;
  options.d_out = large ? 22 : 6;
  options.cols = kPoolCols;
  options.page_bytes = large ? 600 : 256;
  return options;
}

Recipe seeded_recipe(std::int64_t seed) {
  Recipe recipe;
  recipe.seed = seed;
  recipe.u_scale = 0.25;
  recipe.v_scale = 0.5;
  return recipe;
}

// A page of weights and one of Adam's state.
std::int64_t adam_pair_bytes(const PoolOptions& options) {
  Pool pool(0, options, nullptr, 0);
  const SparseOptimizer adam(pool, {});
  return options.tile() *
         (options.layout().record_bytes() + pool.state_floats() * std::int64_t{sizeof(float)});
}

std::int64_t smallest_of_both() {
  return std::max(adam_pair_bytes(sized_options(false)), adam_pair_bytes(sized_options(true)));
}

// Two pools of one memory, with Adam; the one with the larger number is made first.
struct Pools {
  Pools(const storage::PageReader* store, std::int64_t budget)
      : memory(std::make_shared<PageMemory>(store, budget)),
        small(std::make_shared<Pool>(5, sized_options(false), memory)),
        large(std::make_shared<Pool>(2, sized_options(true), memory)) {
    attach();
  }
  // As the store has them.
  Pools(const storage::PageReader& store, std::int64_t budget, bool)
      : memory(std::make_shared<PageMemory>(&store, budget)),
        small(Pool::load(5, memory)),
        large(Pool::load(2, memory)) {
    attach();
  }
  void attach() {
    for (Pool* pool : both()) {
      optimizers.push_back(
          std::make_unique<SparseOptimizer>(*pool, SparseOptimizerOptions{.lr = 0.05}));
    }
  }
  std::vector<Pool*> both() const { return {small.get(), large.get()}; }
  void grow(std::int64_t seed) {
    for (Pool* pool : both()) pool->grow(kPoolRows, kPoolCols, seeded_recipe(seed));
  }
  // A step on some experts of the open generation of each.
  void train(std::uint64_t seed) {
    for (std::size_t i = 0; i < 2; ++i) {
      Pool& pool = *both()[i];
      const Generation& g = pool.generation(*pool.open_generation());
      std::vector<std::int64_t> ids = ids_of(g);
      std::erase_if(ids, [&](std::int64_t id) {
        return (static_cast<std::uint64_t>(id) * 2654435761U + seed * 40503U) % 7 > 2;
      });
      const auto n = static_cast<std::int64_t>(ids.size());
      optimizers[i]->step(
          {at::tensor(ids), normal_tensor({n, pool.options().d_in + pool.options().d_out}, seed)});
    }
  }
  void offer(storage::CommitRequest& request) {
    memory->add_to_commit(request);
    for (Pool* pool : both()) pool->add_to_commit(request);
  }
  void committed() {
    memory->committed();
    for (Pool* pool : both()) pool->committed();
  }
  storage::Digest commit(storage::PageStore& store) {
    storage::CommitRequest request;
    offer(request);
    const storage::Digest digest = value_or_throw(store.commit(request)).state_digest;
    committed();
    return digest;
  }
  std::vector<at::Tensor> values() {
    std::vector<at::Tensor> values;
    for (Pool* pool : both()) {
      for (const Generation& g : pool->generations()) {
        const ExpertValues found = pool->experts_at(ids_of(g));
        values.push_back(found.u);
        values.push_back(found.v);
      }
    }
    return values;
  }

  std::shared_ptr<PageMemory> memory;
  std::shared_ptr<Pool> small, large;
  std::vector<std::unique_ptr<SparseOptimizer>> optimizers;
};

struct Learnt {
  std::vector<storage::Digest> digests;  // of the store after each commit
  std::vector<at::Tensor> values;
  PagerCounters counters;
};

// Trains, commits beside training, widens, freezes, grows, fails a commit, reopens.
Learnt learn_both(std::int64_t budget) {
  Learnt outcome;
  const auto store = storage::make_memory_store();
  auto pools = std::make_unique<Pools>(store.get(), budget);
  pools->grow(1);
  for (std::uint64_t step = 0; step < 3; ++step) pools->train(step);
  outcome.digests.push_back(pools->commit(*store));
  pools->train(10);
  {
    storage::CommitRequest request;
    pools->offer(request);
    pools->train(11);  // while the commit is in flight
    pools->small->grow_columns(3);
    pools->train(12);
    pools->large->freeze({});
    pools->large->grow(kPoolRows, kPoolCols, seeded_recipe(2));
    pools->train(13);
    outcome.digests.push_back(value_or_throw(store->commit(request)).state_digest);
    pools->committed();
  }
  {
    storage::CommitRequest request;
    pools->offer(request);
    pools->train(20);
    pools->memory->commit_failed();
    for (Pool* pool : pools->both()) pool->commit_failed();
  }
  outcome.digests.push_back(pools->commit(*store));
  outcome.counters = pools->memory->counters();
  outcome.values = pools->values();
  pools.reset();
  Pools reopened(*store, budget, true);
  const std::vector<at::Tensor> values = reopened.values();
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_TRUE(same_bits(values[i], outcome.values[i])) << "reopened, tensor " << i;
  }
  reopened.train(30);
  outcome.digests.push_back(reopened.commit(*store));
  return outcome;
}

TEST(PageMemory, TheSmallestBudgetOfTwoPoolsGivesTheSameBits) {
  const Learnt whole = learn_both(0);
  EXPECT_EQ(whole.counters.evicted, 0u);
  for (const std::int64_t budget : {smallest_of_both(), 5 * smallest_of_both() + 100}) {
    SCOPED_TRACE(budget);
    const Learnt paged = learn_both(budget);
    EXPECT_LE(paged.counters.peak_bytes, static_cast<std::uint64_t>(budget));
    EXPECT_GT(paged.counters.evicted, 100u);
    EXPECT_GT(paged.counters.unspilled, 20u);
    ASSERT_EQ(paged.digests.size(), whole.digests.size());
    for (std::size_t i = 0; i < whole.digests.size(); ++i) {
      EXPECT_EQ(paged.digests[i].hex(), whole.digests[i].hex()) << "commit " << i;
    }
    for (std::size_t i = 0; i < whole.values.size(); ++i) {
      EXPECT_TRUE(same_bits(paged.values[i], whole.values[i])) << "tensor " << i;
    }
  }
}

TEST(PageMemory, ABudgetIsLegalForEachPoolByItself) {
  const auto store = storage::make_memory_store();
  const std::int64_t small = adam_pair_bytes(sized_options(false));
  ASSERT_LT(small, smallest_of_both());
  Pools pools(store.get(), smallest_of_both() - 1);
  pools.grow(1);
  EXPECT_EQ(pools.small->experts_at({0}).u.size(0), 1);
  const CompactGradient one{at::zeros({1}, at::kLong), at::ones({1, 18})};
  EXPECT_NO_THROW(pools.optimizers[0]->step(one));
  EXPECT_THAT(message_of<InvalidOptions>([&] {
                pools.optimizers[1]->step({at::zeros({1}, at::kLong), at::ones({1, 42})});
              }),
              AllOf(HasSubstr(std::to_string(smallest_of_both() - 1)),
                    HasSubstr(std::to_string(smallest_of_both()))));
}

TEST(PageMemory, OneCommitHasThePagesOfAllInTheOrderOfTheirIds) {
  const auto store = storage::make_memory_store();
  Pools pools(store.get(), 0);
  pools.grow(1);
  pools.train(1);
  for (int attempt = 0; attempt < 2; ++attempt) {
    storage::CommitRequest request;
    pools.offer(request);
    ASSERT_FALSE(request.pages.empty());
    EXPECT_EQ(request.pages.front().id.pool, 2u);
    EXPECT_EQ(request.pages.back().id.pool, 5u);
    for (std::size_t i = 1; i < request.pages.size(); ++i) {
      EXPECT_LT(request.pages[i - 1].id, request.pages[i].id);
    }
    EXPECT_EQ(pools.memory->counters().dirty_bytes, 0u);
    if (attempt == 0) {
      pools.memory->commit_failed();
      EXPECT_GT(pools.memory->counters().dirty_bytes, 0u) << "of both, as before";
    } else {
      ASSERT_TRUE(store->commit(request).ok());
      pools.committed();
    }
  }
  storage::CommitRequest next;
  pools.offer(next);
  EXPECT_TRUE(next.pages.empty());
}

TEST(PageMemory, RecordsComeAfterThePagesThatTheySpeakOf) {
  Pools pools(nullptr, 0);
  storage::CommitRequest request;
  EXPECT_THAT(message_of<Error>([&] { pools.small->add_to_commit(request); }),
              AllOf(HasSubstr("pool 5"), HasSubstr("PageMemory::add_to_commit")));
  pools.memory->add_to_commit(request);
  pools.small->add_to_commit(request);
  EXPECT_THROW(pools.memory->add_to_commit(request), Error);
}

TEST(PageMemory, ANumberIsOnePool) {
  Pools pools(nullptr, 0);
  EXPECT_THAT(message_of<Error>([&] { Pool(5, sized_options(true), pools.memory); }),
              HasSubstr("pool 5 is in this memory already"));
  pools.grow(1);
  EXPECT_EQ(pools.small->experts_at({0}).u.size(0), 1) << "the first is as it was";
  pools.optimizers.clear();
  pools.small.reset();
  EXPECT_NO_THROW(Pool(5, sized_options(true), pools.memory));
}

TEST(PageMemory, APoolWithoutAStoreHasNoBudget) {
  EXPECT_THAT(message_of<InvalidOptions>([] { PageMemory(nullptr, 4096); }), HasSubstr("4096"));
  EXPECT_THAT(message_of<InvalidOptions>([] { PageMemory(nullptr, -1); }), HasSubstr("-1"));
}

TEST(PageMemory, AnIdlePoolLendsItsFrames) {
  const auto store = storage::make_memory_store();
  // Half of the experts of each fit.
  const std::int64_t pages = kPoolRows * kPoolCols / 2 / 2;
  Pools pools(store.get(), pages * adam_pair_bytes(sized_options(false)));
  pools.grow(1);
  const auto misses_of = [&](Pool& pool) {
    const PagerCounters before = pools.memory->counters();
    (void)pool.experts_at(ids_of(pool.generation(0)));
    const PagerCounters after = pools.memory->counters();
    return after.initialised - before.initialised;
  };
  const std::uint64_t whole = pools.small->pages();
  EXPECT_EQ(misses_of(*pools.small), whole);
  EXPECT_EQ(misses_of(*pools.small), 0u) << "weights alone fit";
  for (int i = 0; i < 4; ++i) (void)misses_of(*pools.large);
  EXPECT_GT(misses_of(*pools.small), whole / 2) << "the other had its frames";
  for (int i = 0; i < 4; ++i) (void)misses_of(*pools.small);
  EXPECT_EQ(misses_of(*pools.small), 0u) << "and gave them back";
  EXPECT_LE(pools.memory->counters().peak_bytes,
            static_cast<std::uint64_t>(pools.memory->budget_bytes()));
}

TEST(PageMemory, NowhereToSpillIsAnErrorThatLosesNothing) {
  const auto store = storage::make_memory_store();
  StoreWrapper wrapper(*store);
  Pools pools(&wrapper, smallest_of_both()), whole(nullptr, 0);
  pools.grow(1);
  whole.grow(1);
  const CompactGradient one{at::zeros({1}, at::kLong), at::ones({1, 18})};
  pools.optimizers[0]->step(one);
  whole.optimizers[0]->step(one);
  wrapper.scratch = "/nonexistent/perennial";
  EXPECT_THAT(message_of<StorageError>([&] { (void)pools.large->experts_at(ids_of(0, 16, 8)); }),
              AllOf(HasSubstr("page pool 5 row 0"), HasSubstr("/nonexistent/perennial")));
  wrapper.scratch.reset();
  const std::vector<at::Tensor> found = pools.values(), expected = whole.values();
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(same_bits(found[i], expected[i])) << i;
  }
}

// One thread trains a pool and commits while others retrieve from the other one, all within the
// budget of a single token.
TEST(PageMemory, ThreadsRetrieveWhileAnotherPoolTrains) {
  const auto store = storage::make_memory_store(), store_whole = storage::make_memory_store();
  Pools pools(store.get(), smallest_of_both()), whole(store_whole.get(), 0);
  pools.grow(1);
  whole.grow(1);
  const at::Tensor expected = whole.large->experts_at(ids_of(0, kPoolRows, kPoolCols)).u;
  const auto train = [](Pools& of) {
    const std::vector<std::int64_t> ids = ids_of(0, kPoolRows, kPoolCols);
    const auto n = static_cast<std::int64_t>(ids.size());
    for (std::uint64_t step = 0; step < 4; ++step) {
      of.optimizers[0]->step({at::tensor(ids), normal_tensor({n, 18}, step)});
    }
  };
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      const at::NoGradGuard no_grad;
      do {
        EXPECT_TRUE(
            same_bits(pools.large->experts_at(ids_of(0, kPoolRows, kPoolCols)).u, expected));
      } while (!done);
    });
  }
  train(pools);
  const storage::Digest digest = pools.commit(*store);
  train(pools);
  done = true;
  for (std::thread& thread : threads) thread.join();
  train(whole);
  EXPECT_EQ(digest.hex(), whole.commit(*store_whole).hex());
  train(whole);
  EXPECT_EQ(pools.commit(*store).hex(), whole.commit(*store_whole).hex());
}

}  // namespace
}  // namespace perennial
