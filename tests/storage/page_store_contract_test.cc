// SPDX-License-Identifier: Apache-2.0
// The contract of PageStore, run over every implementation.
#include <functional>
#include <memory>
#include <stdexcept>
#include <thread>

#include "store_contract.h"

namespace perennial::storage::testing {
namespace {

class PageStoreContract : public StoreContract {};
INSTANTIATE_TEST_SUITE_P(Stores, PageStoreContract, all_stores(), store_name);

TEST_P(PageStoreContract, EmptyStoreHasNoHead) {
  EXPECT_EQ(store->head().status().code(), StatusCode::not_found);
  EXPECT_TRUE(store->log().empty());
  EXPECT_TRUE(store->pages().empty());
  EXPECT_EQ(store->resolve("1").status().code(), StatusCode::not_found);
  Bytes payload(256);
  EXPECT_EQ(store->read_page(weights(0, 0), payload).code(), StatusCode::not_found);
  EXPECT_EQ(store->read_dense("x").status().code(), StatusCode::not_found);
  const auto report = store->verify();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->damage.empty());
}

TEST_P(PageStoreContract, ReadsBackWhatWasCommitted) {
  Change change(model);
  change.page(weights(7, 1), 1).page(weights(0, 0), 2, shape_of(1, 1));
  change.page({PageKind::state, 0, 7, 1}, 3, shape_of(4, 33));
  change.page(weights(4294967295u, 4294967295u, 4294967295u), 4, shape_of(1024, 1024));
  change.dense("router", bytes_of(5, 600'000))
      .dense("empty", {})
      .dense("exact", bytes_of(6, 262'144));
  const CommitInfo info = commit(change);
  EXPECT_EQ(info.commit, 1u);
  EXPECT_EQ(info.parent, 0u);
  EXPECT_EQ(info.pages_written, 4u);
  EXPECT_EQ(info.pages_listed, 4u);
  EXPECT_EQ(info.bytes_written, 256u + 4 + 528 + (4u << 20) + 600'000 + 262'144);
  EXPECT_EQ(difference(*store, model), "");
  reopen();
  EXPECT_EQ(difference(*store, model), "");
  EXPECT_EQ(store->head()->state_digest, info.state_digest);
  EXPECT_TRUE(store->contains(weights(7, 1)));
  EXPECT_FALSE(store->contains(weights(7, 2)));
  EXPECT_FALSE(store->contains(weights(8, 1)));
  Bytes small(255);
  EXPECT_EQ(store->read_page(weights(7, 1), small).code(), StatusCode::invalid_argument);
}

TEST_P(PageStoreContract, KeepsBf16Pages) {
  Change change(model);
  const PageShape shape{DType::bf16, 32, 48};
  EXPECT_EQ(shape.payload_bytes(), 32u * 48 * 2);
  change.page(weights(1, 0), 1, shape).page({PageKind::state, 0, 1, 0}, 2, shape_of(32, 112));
  // As many bytes as a page may have, and one element more.
  change.page(weights(2, 0), 3, {DType::bf16, 1, 2u << 20});
  ASSERT_TRUE(store->commit(change.get()).ok());
  Change later(model);
  later.experts(weights(1, 0), 0b100, 4);  // a delta of 96 bytes
  ASSERT_TRUE(store->commit(later.get()).ok());
  reopen();
  EXPECT_EQ(difference(*store, model), "");
  EXPECT_EQ(store->page_shape(weights(1, 0))->dtype, DType::bf16);
  Model spoilt = model;
  Change large(spoilt);
  large.page(weights(3, 0), 5, {DType::bf16, 1, (2u << 20) + 1});
  EXPECT_EQ(store->commit(large.get()).status().code(), StatusCode::invalid_argument);
  Change unknown(spoilt);
  unknown.page(weights(4, 0), 6, {static_cast<DType>(2), 1, 16});
  EXPECT_EQ(store->commit(unknown.get()).status().code(), StatusCode::invalid_argument);
}

TEST_P(PageStoreContract, ManyCommitsAcrossReopensAndFullTables) {
  for (std::uint32_t step = 1; step <= 11; ++step) {
    Change change(model);
    for (std::uint32_t row = 0; row < step; ++row) change.page(weights(row * step % 7, row), step);
    if (step % 2 == 0) change.remove(weights(step % 7, 0)).dense("d", bytes_of(step, 1000 * step));
    if (step % 5 == 0) change.remove_dense("d");
    // What is removed must not be written in the same commit.
    CommitRequest request = change.get();
    std::erase_if(request.pages, [&](const PageWrite& page) {
      return std::ranges::count(request.removed_pages, page.id) > 0;
    });
    for (const std::string& name : request.removed_dense) request.dense.erase(name);
    request.retention = Retention::all();
    const auto info = store->commit(request);
    ASSERT_TRUE(info.ok()) << info.status().to_string();
    EXPECT_EQ(info->commit, step);
    EXPECT_EQ(info->parent, step - 1);
    ASSERT_EQ(difference(*store, model), "") << "step " << step;
    reopen();
    ASSERT_EQ(difference(*store, model), "") << "step " << step << " reopened";
    EXPECT_EQ(store->head()->state_digest, info->state_digest);
    EXPECT_EQ(store->head()->pages_listed, model.pages.size());
  }
  const auto report = store->verify();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->damage.empty());
  EXPECT_EQ(report->records, 11u);
  EXPECT_GT(report->bytes, 0u);
}

TEST_P(PageStoreContract, EmptyCommitIsACommit) {
  Change change(model);
  const CommitInfo first = commit(change.snapshot("start"));
  Change nothing(model);
  const CommitInfo second = commit(nothing);
  EXPECT_EQ(second.commit, 2u);
  EXPECT_EQ(second.bytes_written, 0u);
  EXPECT_EQ(second.state_digest, first.state_digest);
  reopen();
  EXPECT_EQ(*store->resolve("start"), 1u);
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(PageStoreContract, RemovedPagesAreGone) {
  Change first(model);
  commit(first.page(weights(0, 0), 1).page({PageKind::state, 0, 0, 0}, 2));
  Change second(model);
  second.remove({PageKind::state, 0, 0, 0});
  second.request.removed_pages.push_back(weights(99, 99));  // never was: ignored
  const CommitInfo info = commit(second);
  EXPECT_EQ(info.pages_removed, 1u);
  EXPECT_EQ(info.pages_listed, 1u);
  reopen();
  EXPECT_FALSE(store->contains({PageKind::state, 0, 0, 0}));
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(PageStoreContract, UnchangedChunksAreNotWrittenAgain) {
  Bytes big = bytes_of(1, 10 * 262'144 + 5);
  Change first(model);
  EXPECT_EQ(commit(first.dense("moments", big)).bytes_written, big.size());
  Change same(model);
  EXPECT_EQ(commit(same.dense("moments", big)).bytes_written, 0u);
  big[262'144 * 3 + 17] ^= std::byte{1};
  Change one(model);
  EXPECT_EQ(commit(one.dense("moments", big)).bytes_written, 262'144u);
  Change copy(model);  // the same content under another name, and twice within one entry
  Bytes twice = big;
  twice.insert(twice.end(), 262'144, std::byte{7});
  EXPECT_EQ(commit(copy.dense("copy", big)).bytes_written, 0u);
  reopen();
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(PageStoreContract, EqualChunksWithinOneCommitAreStoredOnce) {
  Change change(model);
  const CommitInfo info =
      commit(change.dense("zeros", Bytes(5 * 262'144)).dense("more", Bytes(2 * 262'144)));
  EXPECT_EQ(info.bytes_written, 262'144u);
  reopen();
  EXPECT_EQ(difference(*store, model), "");
  EXPECT_EQ(store->log()[0].live_bytes, 262'144u);
}

TEST_P(PageStoreContract, RestoreBringsAStateBack) {
  Change first(model);
  const CommitInfo one =
      commit(first.page(weights(0, 0), 1).page(weights(1, 0), 2).dense("d", bytes_of(3, 70'000)));
  const Model then = model;
  Change second(model);
  commit(second.page(weights(0, 0), 9).remove(weights(1, 0)).dense("d", bytes_of(4, 100)));
  Change third(model);
  commit(third.page(weights(5, 0), 10));
  const auto restored = store->restore({.commit = 1, .snapshot = "back", .note = "because"});
  ASSERT_TRUE(restored.ok()) << restored.status().to_string();
  EXPECT_EQ(restored->commit, 4u);
  EXPECT_EQ(restored->parent, 1u);
  EXPECT_EQ(restored->bytes_written, 0u);
  EXPECT_EQ(restored->state_digest, one.state_digest);
  EXPECT_EQ(difference(*store, then), "");
  reopen();
  EXPECT_EQ(difference(*store, then), "");
  EXPECT_EQ(*store->resolve("back"), 4u);
  EXPECT_EQ(store->restore({.commit = 9}).status().code(), StatusCode::not_found);
  EXPECT_EQ(store->restore({.commit = 0}).status().code(), StatusCode::not_found);
  EXPECT_EQ(store->restore({.commit = 2, .snapshot = "back"}).status().code(),
            StatusCode::invalid_argument);
  // Going on from the restored state, and forward again to the state before it.
  Model after = then;
  Change fifth(after);
  commit(fifth.page(weights(1, 0), 11));
  reopen();
  EXPECT_EQ(difference(*store, after), "");
  ASSERT_TRUE(store->restore({.commit = 3}).ok());
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(PageStoreContract, SnapshotNames) {
  Change first(model);
  commit(first.page(weights(0, 0), 1).snapshot("a.B_c-1"));
  for (const std::string& bad :
       {std::string("a b"), std::string("a/b"), std::string(129, 'x'), std::string("42"),
        std::string("\xc3\xa4"), std::string("a.B_c-1")}) {
    Change change(model);
    change.snapshot(bad);
    EXPECT_EQ(store->commit(change.get()).status().code(), StatusCode::invalid_argument) << bad;
  }
  Change longest(model);
  commit(longest.snapshot(std::string(128, 'x')));
  for (int i = 0; i < 5; ++i) {  // across full tables
    Change more(model);
    commit(more);
  }
  reopen();
  EXPECT_EQ(*store->resolve("a.B_c-1"), 1u);
  EXPECT_EQ(*store->resolve(std::string(128, 'x')), 2u);
  EXPECT_EQ(*store->resolve("7"), 7u);
  for (const char* absent : {"8", "0", "", "b", "-1", "1x", "99999999999999999999"}) {
    EXPECT_EQ(store->resolve(absent).status().code(), StatusCode::not_found) << absent;
  }
  Change again(model);
  again.snapshot("a.B_c-1");
  EXPECT_EQ(store->commit(again.get()).status().code(), StatusCode::invalid_argument);
}

TEST_P(PageStoreContract, RefusesBadRequestsAndKeepsTheState) {
  Change first(model);
  const CommitInfo head = commit(first.page(weights(1, 0), 1).dense("d", bytes_of(1, 10)));
  const Model before = model;
  const Bytes payload = bytes_of(2, 256);
  const auto give = [&] { return Result<std::span<const std::byte>>(std::span(payload)); };
  const PageShape shape = shape_of(4, 16);
  const std::vector<std::function<void(CommitRequest&)>> cases = {
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape, give}, {weights(1, 0), shape, give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape, give}, {weights(2, 0), shape, give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape_of(0, 16), give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape_of(4, 0), give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape_of(1024, 1025), give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape_of(0xffffffff, 0xffffffff), give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), {static_cast<DType>(9), 4, 16}, give}};
      },
      [&](auto& r) {
        r.pages = {{{static_cast<PageKind>(7), 0, 0, 0}, shape, give}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape, nullptr}};
      },
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape_of(4, 17), give}};
      },  // wrong size
      [&](auto& r) {
        r.pages = {{weights(2, 0), shape, give}};
        r.removed_pages = {weights(2, 0)};
      },
      [&](auto& r) { r.dense[""] = {}; },
      [&](auto& r) { r.dense[std::string(256, 'x')] = {}; },
      [&](auto& r) {
        r.dense["x"] = {};
        r.removed_dense = {"x"};
      },
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CommitRequest request;
    cases[i](request);
    EXPECT_EQ(store->commit(request).status().code(), StatusCode::invalid_argument) << i;
    EXPECT_EQ(difference(*store, before), "") << i;
    EXPECT_EQ(store->head()->commit, head.commit) << i;
  }
  reopen();
  EXPECT_EQ(difference(*store, before), "");
  EXPECT_EQ(store->log().size(), 1u);
}

TEST_P(PageStoreContract, PayloadFailuresAndExceptionsLeaveTheState) {
  Change first(model);
  commit(first.page(weights(1, 0), 1));
  const Bytes payload = bytes_of(2, 256);
  const PageShape shape = shape_of(4, 16);
  CommitRequest request;
  request.dense["d"] = bytes_of(1, 1000);
  request.pages = {{weights(1, 0), shape,
                    [&] { return Result<std::span<const std::byte>>(std::span(payload)); }},
                   {weights(2, 0), shape, []() -> Result<std::span<const std::byte>> {
                      return Status(StatusCode::io_error, "spill file gone");
                    }}};
  const auto failed = store->commit(request);
  EXPECT_EQ(failed.status().code(), StatusCode::io_error);
  EXPECT_THAT(failed.status().message(), ::testing::HasSubstr("spill file gone"));
  EXPECT_EQ(difference(*store, model), "");
  request.pages[1].payload = []() -> Result<std::span<const std::byte>> {
    throw std::runtime_error("thrown");
  };
  EXPECT_THROW((void)store->commit(request), std::runtime_error);
  EXPECT_EQ(difference(*store, model), "");
  Change next(model);
  EXPECT_EQ(commit(next.page(weights(3, 0), 3)).commit, 2u);
  reopen();
  EXPECT_EQ(difference(*store, model), "");
}

TEST_P(PageStoreContract, PayloadIsAskedForOnceAndInOrder) {
  std::vector<std::uint32_t> asked;
  const Bytes payload = bytes_of(2, 256);
  CommitRequest request;
  for (std::uint32_t row = 0; row < 20; ++row) {
    request.pages.push_back({weights(row, 0), shape_of(4, 16), [&asked, &payload, row] {
                               asked.push_back(row);
                               return Result<std::span<const std::byte>>(std::span(payload));
                             }});
  }
  ASSERT_TRUE(store->commit(request).ok());
  ASSERT_EQ(asked.size(), 20u);
  EXPECT_TRUE(std::ranges::is_sorted(asked));
}

TEST_P(PageStoreContract, LogTellsWhatIsStillUsed) {
  Change first(model);
  first.request.note = R"({"loss":1})";
  commit(first.page(weights(0, 0), 1).page(weights(1, 0), 2).dense("d", bytes_of(3, 1000)));
  Change second(model);
  commit(second.page(weights(0, 0), 3).snapshot("two"));
  Change third(model);
  commit(third.dense("d", bytes_of(4, 500)));
  reopen();
  const std::vector<CommitInfo> log = store->log();
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0].note, R"({"loss":1})");
  EXPECT_EQ(log[0].bytes_written, 512u + 1000);
  EXPECT_EQ(log[0].live_bytes, 256u);
  EXPECT_EQ(log[1].snapshot, "two");
  EXPECT_EQ(log[1].live_bytes, 256u);
  EXPECT_EQ(log[2].live_bytes, 500u);
  EXPECT_GT(log[0].unix_ms, 1'600'000'000'000);
  EXPECT_EQ(log[2].state_digest, store->head()->state_digest);
  for (const CommitInfo& info : log) {
    EXPECT_GT(info.file_bytes, info.bytes_written);
  }
}

TEST_P(PageStoreContract, CountersCount) {
  Change first(model);
  commit(first.page(weights(0, 0), 1).page(weights(1, 0), 2).dense("d", bytes_of(3, 1000)));
  Bytes payload(256);
  ASSERT_TRUE(store->read_page(weights(0, 0), payload).ok());
  ASSERT_TRUE(store->read_page(weights(1, 0), payload).ok());
  const StoreCounters counters = store->counters();
  EXPECT_EQ(counters.pages_written, 2u);
  EXPECT_EQ(counters.bytes_written, 1512u);
  EXPECT_EQ(counters.pages_read, 2u);
  EXPECT_EQ(counters.bytes_read, 512u);
  EXPECT_EQ(counters.commits, 1u);
  EXPECT_EQ(counters.reopens, 0u);
  EXPECT_GE(*store->size_bytes(), 1512u);
  EXPECT_TRUE(std::filesystem::is_directory(store->scratch_folder()));
}

TEST_P(PageStoreContract, PagesReadInParallel) {
  Change change(model);
  for (std::uint32_t row = 0; row < 64; ++row) change.page(weights(row, row % 3), row);
  commit(change);
  std::vector<std::string> differences(4);
  std::vector<std::thread> readers;
  for (std::string& result : differences) {
    readers.emplace_back([&] { result = difference(*store, model); });
  }
  for (std::thread& reader : readers) reader.join();
  for (const std::string& result : differences) EXPECT_EQ(result, "");
}

}  // namespace
}  // namespace perennial::storage::testing
