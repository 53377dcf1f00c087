// SPDX-License-Identifier: Apache-2.0
// Commits of a run: in flight while it trains, failing and tried again, started by other triggers.
#include "continual/run/trainer_testing.h"
#include "perennial/storage/memory_store.h"
#include "support/store_wrapper.h"

namespace perennial::continual {
namespace {

// Refuses commits where it is told to.
class FlakyStore final : public perennial::testing::StoreWrapper {
 public:
  using StoreWrapper::StoreWrapper;
  std::function<bool(int)> refuses = [](int) { return false; };  // of the n-th commit, from 1
  storage::StatusCode code = storage::StatusCode::no_space;
  int tried = 0;
  int refused = 0;

  storage::Result<storage::CommitInfo> commit(const storage::CommitRequest& request) override {
    if (refuse()) return status();
    return StoreWrapper::commit(request);
  }
  std::future<storage::Result<storage::CommitInfo>> commit_async(
      storage::CommitRequest request) override {
    if (!refuse()) return StoreWrapper::commit_async(std::move(request));
    std::promise<storage::Result<storage::CommitInfo>> promise;
    promise.set_value(status());
    return promise.get_future();
  }

 private:
  bool refuse() {
    const bool refused_now = refuses(++tried);
    refused += refused_now ? 1 : 0;
    return refused_now;
  }
  storage::Status status() const { return {code, "injected"}; }
};

struct Outcome {
  RunResult result;
  std::vector<std::string> warnings;
};

Outcome run_with(const RunConfig& config, storage::PageStore& store, RunSettings settings) {
  Outcome outcome;
  settings.on_warning = [&](const std::string& warning) { outcome.warnings.push_back(warning); };
  outcome.result = Trainer(config, make_stream(config), &store, settings).run();
  return outcome;
}

TEST(RunCommits, AFullDiskForAWhileCostsNothing) {
  const RunConfig config = small_config(kGrowFreeze);
  const auto undisturbed = storage::make_memory_store();
  const RunResult expected = run(config, undisturbed.get());
  const auto inner = storage::make_memory_store();
  FlakyStore store(*inner);
  // The second commit is written while training goes on; later ones find the disk full again.
  store.refuses = [](int n) { return n == 2 || n == 5; };
  const Outcome outcome = run_with(config, store, {.commit_patience_seconds = 30});
  EXPECT_EQ(store.refused, 2);
  EXPECT_EQ(outcome.warnings.size(), 2u);
  EXPECT_TRUE(outcome.result.finished);
  EXPECT_EQ(outcome.result.state_digest, expected.state_digest);
  EXPECT_EQ(inner->head()->state_digest.hex(), expected.state_digest);
  EXPECT_EQ(matrix_of(outcome.result), matrix_of(expected));
}

TEST(RunCommits, ADiskThatStaysFullEndsTheRunAtABoundaryAndItResumes) {
  const RunConfig config = small_config(kGrowFreeze);
  const auto undisturbed = storage::make_memory_store();
  const RunResult expected = run(config, undisturbed.get());
  const auto inner = storage::make_memory_store();
  FlakyStore store(*inner);
  store.refuses = [](int n) { return n > 1; };
  EXPECT_THROW(run_with(config, store, {.commit_patience_seconds = 0}), StorageError);
  EXPECT_EQ(inner->head()->commit, 1u);
  store.refuses = [](int) { return false; };
  const Outcome resumed = run_with(config, store, {});
  EXPECT_TRUE(resumed.result.finished);
  EXPECT_EQ(resumed.result.state_digest, expected.state_digest);
}

TEST(RunCommits, DamageIsNotTriedAgain) {
  const RunConfig config = small_config(kGrowFreeze);
  const auto inner = storage::make_memory_store();
  FlakyStore store(*inner);
  store.code = storage::StatusCode::corruption;
  store.refuses = [](int n) { return n == 2; };
  EXPECT_THROW(run_with(config, store, {}), StorageError);
  EXPECT_EQ(store.tried, 2);
}

TEST(RunCommits, ChangedBytesAndTimeTriggerThem) {
  RunConfig config = small_config(kGrowFreeze);
  config.train.commit_every = 0;
  const auto count = [&](RunSettings settings) {
    const auto store = storage::make_memory_store();
    run_with(config, *store, std::move(settings));
    return store->head()->commit;
  };
  const std::uint64_t boundaries = count({});
  EXPECT_EQ(boundaries, 4u);  // untrained, and after each of three experiences
  EXPECT_GT(count({.commit_dirty_bytes = 1}), boundaries);
  EXPECT_EQ(count({.commit_dirty_bytes = std::int64_t{1} << 40}), boundaries);
  EXPECT_GT(count({.commit_seconds = 1e-9}), boundaries);
  EXPECT_EQ(count({.commit_seconds = 1e6}), boundaries);
}

TEST(RunCommits, KeepTheRuleThatIsAskedFor) {
  const RunConfig config = small_config(kGrowFreeze);
  const auto store = storage::make_memory_store();
  run_with(config, *store, {.retention = storage::Retention{.keep_last = 1}});
  EXPECT_EQ(store->retention().keep_last, 1u);
  for (const storage::CommitInfo& info : store->log()) {
    EXPECT_TRUE(!info.snapshot.empty() || info.commit == store->head()->commit) << info.commit;
  }
}

}  // namespace
}  // namespace perennial::continual
