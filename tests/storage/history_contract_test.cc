// SPDX-License-Identifier: Apache-2.0
// History over every implementation: older states, dropping, retention, reclaiming, deltas and
// commits in flight.
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "store_contract.h"

namespace perennial::storage::testing {
namespace {

class History : public StoreContract {
 protected:
  // Commits every one of `rows` pages anew.
  CommitInfo commit_pages(std::uint32_t rows, std::uint64_t seed, const std::string& name = "") {
    Change change(model);
    for (std::uint32_t row = 0; row < rows; ++row) {
      change.page(weights(row, 0), seed * 1000 + row, shape_of(16, 64));
    }
    return commit(change.snapshot(name));
  }
  void keep_all() {
    Change change(model);
    change.request.retention = Retention::all();
    commit(change);
  }
  std::vector<std::uint64_t> commits() const {
    std::vector<std::uint64_t> numbers;
    for (const CommitInfo& info : store->log()) numbers.push_back(info.commit);
    return numbers;
  }
  std::uint64_t reclaimed_size(const ReclaimOptions& options = {.target_space = 1}) {
    const auto report = store->reclaim(options);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return *store->size_bytes();
  }
  void expect_intact() {
    const auto report = store->verify();
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    for (const Damage& damage : report->damage) ADD_FAILURE() << damage.what;
    EXPECT_EQ(difference(*store, model), "");
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, History, all_stores(), store_name);

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_P(History, OlderStatesStayReadable) {
  keep_all();
  std::vector<Model> states{model};
  for (std::uint64_t i = 1; i < 9; ++i) {
    Change change(model);
    change.page(weights(i % 2, 0), i).page(weights(2, 0), 100 + i / 3);
    if (i == 4) {
      change.remove_dense("d");
    } else {
      change.dense("d", bytes_of(i, 300'000 + i));
    }
    commit(change);
    states.push_back(model);
  }
  reopen();
  for (std::uint64_t commit = 1; commit <= 9; ++commit) {
    const auto reader = store->at(commit);
    ASSERT_TRUE(reader.ok()) << reader.status().to_string();
    EXPECT_EQ(difference(**reader, states[commit - 1]), "") << commit;
    EXPECT_EQ((*reader)->head()->commit, commit);
    EXPECT_EQ((*reader)->identity(), store->identity());
    EXPECT_EQ((*reader)->log().size(), 9u);
  }
  EXPECT_EQ(store->at(10).status().code(), StatusCode::not_found);
  EXPECT_EQ(store->at(0).status().code(), StatusCode::not_found);
}

TEST_P(History, RetentionKeepsTheLastCommitsAndSnapshots) {
  for (std::uint64_t i = 1; i <= 7; ++i) commit_pages(2, i, i == 2 ? "two" : "");
  EXPECT_THAT(commits(), ElementsAre(2, 5, 6, 7));
  reopen();
  EXPECT_THAT(commits(), ElementsAre(2, 5, 6, 7));
  EXPECT_EQ(store->retention(), Retention{});
  EXPECT_THAT(store->resolve("4").status().message(), HasSubstr("commit 4 was dropped"));
  EXPECT_EQ(store->restore({.commit = 4}).status().code(), StatusCode::not_found);
  ASSERT_TRUE(store->restore({.commit = 2}).ok());
  EXPECT_THAT(commits(), ElementsAre(2, 6, 7, 8));
  // A new rule holds from its own commit on, also after opening again.
  Change change(model);
  change.request.retention = Retention{.keep_last = 1};
  commit(change);
  EXPECT_THAT(commits(), ElementsAre(2, 9));
  reopen();
  EXPECT_EQ(store->retention().keep_last, 1u);
  commit_pages(1, 9);
  EXPECT_THAT(commits(), ElementsAre(2, 10));
}

TEST_P(History, DropReleasesCommitsAndNames) {
  keep_all();
  const CommitInfo second = commit_pages(4, 1, "a");
  commit_pages(4, 2, "b");
  const CommitInfo fourth = commit_pages(4, 3);
  EXPECT_EQ(store->drop({4}, "").status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(store->drop({9}, "").status().code(), StatusCode::not_found);
  EXPECT_EQ(store->drop({}, "").status().code(), StatusCode::invalid_argument);
  EXPECT_THAT(commits(), ElementsAre(1, 2, 3, 4));
  const auto info = store->drop({2, 1}, "why");
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_EQ(info->state_digest, fourth.state_digest);
  EXPECT_EQ(info->note, "why");
  EXPECT_THAT(commits(), ElementsAre(3, 4, 5));
  EXPECT_EQ(store->resolve("a").status().code(), StatusCode::not_found);
  EXPECT_EQ(store->drop({2}, "").status().code(), StatusCode::not_found);
  reopen();
  EXPECT_THAT(commits(), ElementsAre(3, 4, 5));
  commit_pages(4, 4, "a");  // the name is free again
  expect_intact();
  EXPECT_NE(second.commit, *store->resolve("a"));
}

TEST_P(History, RollingBackDropsWhatCameLater) {
  keep_all();
  commit_pages(2, 1, "good");
  const Model good = model;
  commit_pages(2, 2, "bad");
  commit_pages(2, 3);
  const auto info = store->restore({.commit = 2, .drop_later = true});
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_THAT(commits(), ElementsAre(1, 2, 5));
  EXPECT_EQ(difference(*store, good), "");
  EXPECT_EQ(store->resolve("bad").status().code(), StatusCode::not_found);
  model = good;
  reopen();
  reclaimed_size();
  expect_intact();
}

TEST_P(History, ReadersKeepTheirCommit) {
  keep_all();
  commit_pages(3, 1);
  const Model then = model;
  auto reader = store->at(2);
  ASSERT_TRUE(reader.ok());
  commit_pages(3, 2);
  commit_pages(3, 3);
  EXPECT_EQ(store->drop({2}, "").status().code(), StatusCode::busy);
  EXPECT_EQ(store->restore({.commit = 1, .drop_later = true}).status().code(), StatusCode::busy);
  ASSERT_TRUE(store->drop({1, 3}, "").ok());
  Change change(model);
  change.request.retention = Retention{.keep_last = 1};
  commit(change);
  EXPECT_THAT(commits(), ElementsAre(2, 6));
  reclaimed_size();
  EXPECT_EQ(difference(**reader, then), "");
  reader->reset();
  EXPECT_TRUE(store->drop({2}, "").ok());
}

// The commit in flight has decided what it drops before the reader comes.
TEST_P(History, AReaderThatComesDuringACommitKeepsItsPages) {
  Change rule(model);
  rule.request.retention = Retention{.keep_last = 2};
  commit(rule);
  commit_pages(3, 1);
  const Model then = model;
  commit_pages(3, 2);
  Change change(model);
  CommitRequest request = change.page(weights(0, 0), 99, shape_of(16, 64)).get();
  std::promise<void> entered;
  std::promise<void> go_on;
  request.pages[0].payload = [&, payload = request.pages[0].payload] {
    entered.set_value();
    go_on.get_future().wait();
    return payload();
  };
  auto future = store->commit_async(std::move(request));
  entered.get_future().wait();
  const auto reader = store->at(2);  // dropped by the commit in flight
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  go_on.set_value();
  ASSERT_TRUE(future.get().ok());
  EXPECT_EQ(store->resolve("2").status().code(), StatusCode::not_found);
  reclaimed_size();
  EXPECT_EQ(difference(**reader, then), "");
  const auto report = (*reader)->verify();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->damage.empty());
}

TEST_P(History, ReadersVerifyWhatIsTheirs) {
  Change rule(model);
  rule.request.retention = Retention{.keep_last = 2};
  commit(rule);
  commit_pages(3, 1);
  const auto reader = store->at(2);
  ASSERT_TRUE(reader.ok());
  for (std::uint64_t i = 2; i < 6; ++i) commit_pages(3, i);
  reclaimed_size();
  const auto report = (*reader)->verify();
  ASSERT_TRUE(report.ok());
  for (const Damage& damage : report->damage) ADD_FAILURE() << damage.what;
  for (const CommitInfo& info : (*reader)->log()) EXPECT_NE(info.unix_ms, 0) << info.note;
}

TEST_P(History, AForkedChildNeitherCommitsNorHangs) {
  commit_pages(1, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    const bool busy = store->commit({}).status().code() == StatusCode::busy;
    store.reset();
    ::_exit(busy ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  commit_pages(1, 2);
  expect_intact();
}

TEST_P(History, ReclaimGivesTheSpaceBack) {
  keep_all();
  for (std::uint64_t i = 1; i <= 10; ++i) commit_pages(64, i);  // 256 KB each
  const std::uint64_t before = *store->size_bytes();
  EXPECT_GT(before, 10u * 64 * 4096);
  EXPECT_GE(reclaimed_size(), before - before / 50);  // nothing is dead yet
  ASSERT_TRUE(store->drop({2, 3, 4, 5, 6, 7, 8, 9}, "").ok());
  const std::uint64_t after = reclaimed_size();
  EXPECT_LT(after, before * 3 / 10);
  expect_intact();
  reopen();
  expect_intact();
  EXPECT_TRUE(store->at(10).ok());
  EXPECT_EQ(store->at(5).status().code(), StatusCode::not_found);
}

TEST_P(History, PartlyDeadFilesShrinkAndKeepWhatIsUsed) {
  Change rule(model);
  rule.request.retention = Retention{.keep_last = 1};
  commit(rule);
  commit_pages(100, 1);
  for (std::uint64_t i = 2; i < 8; ++i) {  // 60 of the 100 pages are written again
    Change change(model);
    for (std::uint32_t row = 0; row < 10; ++row) {
      change.page(weights(static_cast<std::uint32_t>(i - 2) * 10 + row, 0), i, shape_of(16, 64));
    }
    commit(change.dense("d", bytes_of(i, 300'000)));
  }
  const std::uint64_t before = *store->size_bytes();
  const auto report = store->reclaim({.fold_files = 0});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  // Beside the commit files, RocksDB's manifest grows a little.
  EXPECT_NEAR(static_cast<double>(report->bytes_before - report->bytes_after),
              static_cast<double>(before - *store->size_bytes()), 4096);
  EXPECT_GE(report->files_rewritten, 1u);
  EXPECT_LT(*store->size_bytes(), before - 60 * 4096);
  expect_intact();
  reopen();
  expect_intact();
}

TEST_P(History, RunsOfSmallFilesAreFolded) {
  keep_all();
  for (std::uint64_t i = 1; i <= 20; ++i) commit_pages(1, i);
  const auto report = store->reclaim({.fold_files = 8});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  // All but the newest; the memory store folds by itself, too.
  if (GetParam().durable) {
    EXPECT_EQ(report->files_rewritten, 20u);
  }
  expect_intact();
  reopen();
  expect_intact();
  for (std::uint64_t commit = 1; commit <= 21; ++commit) EXPECT_TRUE(store->at(commit).ok());
  for (std::uint64_t i = 21; i <= 30; ++i) commit_pages(1, i);
  ASSERT_TRUE(store->reclaim({.fold_files = 8}).ok());
  expect_intact();
}

TEST_P(History, DeltasReadAsWholePages) {
  std::mt19937_64 random(7);
  commit_pages(4, 1);
  std::uint64_t deltas = 0;
  for (std::uint64_t i = 2; i < 60; ++i) {
    Change change(model);
    for (std::uint32_t row = 0; row < 4; ++row) {
      if (random() % 4 == 0) continue;
      change.experts(weights(row, 0), (std::uint64_t{1} << random() % 16) | 1, i * 10 + row);
    }
    const CommitInfo info = commit(change);
    deltas += info.bytes_written < info.pages_written * 4096 ? 1 : 0;
    ASSERT_EQ(difference(*store, model), "") << i;
    if (i % 7 == 0) reopen();
    if (i % 11 == 0) {
      ASSERT_TRUE(store->reclaim({.target_space = 1, .fold_files = 2}).ok());
    }
  }
  EXPECT_GT(deltas, 30u);
  expect_intact();
  reopen();
  expect_intact();
}

TEST_P(History, DeltasCostTheChangedExperts) {
  commit_pages(4, 1);
  Change change(model);
  for (std::uint32_t row = 0; row < 4; ++row) change.experts(weights(row, 0), 0b11, row);
  const CommitInfo info = commit(change);
  EXPECT_EQ(info.bytes_written, 4u * 2 * 256);
  EXPECT_EQ(store->counters().delta_pages, 4u);
  EXPECT_EQ(store->log().front().live_bytes, 4u * 4096);  // the bases
  // The same digest as a state written whole.
  auto other = make_memory_store();
  Change whole(model);
  for (std::uint32_t row = 0; row < 4; ++row) whole.experts(weights(row, 0), 0, 0);
  EXPECT_EQ(other->commit(whole.get())->state_digest, info.state_digest);
}

TEST_P(History, ACommitInFlightDoesNotBlockReaders) {
  commit_pages(3, 1);
  const Model before = model;
  Change change(model);
  change.page(weights(1, 0), 99, shape_of(16, 64)).page(weights(7, 0), 98).dense("d", Bytes(10));
  CommitRequest request = change.get();
  std::mutex mutex;
  std::condition_variable asked;
  int entered = 0;
  bool go_on = false;
  const auto payload = request.pages.front().payload;
  request.pages.front().payload = [&] {
    std::unique_lock lock(mutex);
    ++entered;
    asked.notify_all();
    asked.wait(lock, [&] { return go_on; });
    return payload();
  };
  auto future = store->commit_async(std::move(request));
  {
    std::unique_lock lock(mutex);
    asked.wait(lock, [&] { return entered == 1; });
  }
  EXPECT_EQ(difference(*store, before), "");
  EXPECT_EQ(store->head()->commit, 1u);
  {
    const std::lock_guard lock(mutex);
    go_on = true;
  }
  asked.notify_all();
  const auto info = future.get();
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_EQ(difference(*store, model), "");
  reopen();
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(History, CommitsInFlightKeepTheirOrder) {
  std::vector<std::future<Result<CommitInfo>>> futures;
  for (std::uint64_t i = 0; i < 5; ++i) {
    Change change(model);
    change.page(weights(0, 0), i).page(weights(1 + static_cast<std::uint32_t>(i), 0), i);
    // The request refers to `change`, which ends here: the payloads must own their bytes.
    CommitRequest request = change.get();
    for (PageWrite& page : request.pages) {
      page.payload = [bytes = model.pages.at(page.id).payload] {
        return Result<std::span<const std::byte>>(std::span<const std::byte>(bytes));
      };
    }
    futures.push_back(store->commit_async(std::move(request)));
  }
  Change last(model);
  EXPECT_EQ(commit(last.page(weights(9, 0), 9)).commit, 6u);
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_EQ(futures[i].get()->commit, i + 1);
  expect_intact();
}

TEST_P(History, AFailedCommitInFlightChangesNothing) {
  commit_pages(2, 1);
  CommitRequest failing;
  failing.pages = {{weights(0, 0), shape_of(4, 16), []() -> Result<std::span<const std::byte>> {
                      return Status(StatusCode::io_error, "spill file gone");
                    }}};
  EXPECT_EQ(store->commit_async(failing).get().status().code(), StatusCode::io_error);
  failing.pages[0].payload = []() -> Result<std::span<const std::byte>> {
    throw std::runtime_error("thrown");
  };
  EXPECT_THROW((void)store->commit_async(failing).get(), std::runtime_error);
  failing.pages[0].shape = shape_of(0, 0);
  EXPECT_EQ(store->commit_async(failing).get().status().code(), StatusCode::invalid_argument);
  expect_intact();
  commit_pages(3, 2);
  expect_intact();
}

TEST_P(History, IdentityIsKeptAndCopied) {
  commit_pages(1, 1);
  const StoreIdentity identity = store->identity();
  EXPECT_NE(identity.origin, Digest());
  reopen();
  EXPECT_EQ(store->identity(), identity);
  Change change(model);
  change.request.identity = StoreIdentity{digest_of(bytes_of(1, 1))};
  EXPECT_EQ(store->commit(change.get()).status().code(), StatusCode::invalid_argument);
  auto copy = make_memory_store();
  CommitRequest first;
  first.identity = identity;
  ASSERT_TRUE(copy->commit(first).ok());
  EXPECT_EQ(copy->identity(), identity);
}

// Everything at once against a model: readers check whole states while commits, drops and
// reclaiming go on.
TEST_P(History, ReadersReclaimingAndCommitsAtOnce) {
  Change rule(model);
  rule.request.retention = Retention{.keep_last = 2};
  commit(rule);
  commit_pages(16, 0);
  std::atomic<bool> done = false;
  std::atomic<int> read = 0;
  std::vector<std::string> failures(2);
  std::vector<std::thread> threads;
  for (std::string& failure : failures) {
    threads.emplace_back([&] {
      Bytes payload(4096);
      std::uint32_t row = 0;
      while (!done && failure.empty()) {
        const Status status = store->read_page(weights(row++ % 16, 0), payload);
        if (!status.ok()) failure = status.to_string();
        ++read;
      }
    });
  }
  threads.emplace_back([&] {
    while (!done) {
      const auto report = store->reclaim({.max_dead = 0.1, .fold_files = 3});
      if (!report.ok()) ADD_FAILURE() << report.status().to_string();
    }
  });
  for (std::uint64_t i = 1; i <= 40; ++i) {
    Change change(model);
    for (std::uint32_t row = 0; row < 16; row += 1 + i % 3) {
      change.page(weights(row, 0), i, shape_of(16, 64));
    }
    commit(change);
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
  EXPECT_GT(read, 40);
  expect_intact();
  reopen();
  expect_intact();
}

}  // namespace
}  // namespace perennial::storage::testing
