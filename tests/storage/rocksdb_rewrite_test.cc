// SPDX-License-Identifier: Apache-2.0
// Rewriting and removing files beside readers, commits, failures and kills, and what they leave.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "backend_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST_F(RocksdbBackendTest, ReadersGoOnWhileFilesAreReplaced) {
  auto backend = open_with(12);
  std::atomic<bool> done{false};
  std::atomic<int> reads{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (std::uint32_t reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&, reader] {
      for (std::uint32_t i = reader; !done; ++i) {
        const std::uint64_t commit = 1 + i % 12;
        if (!look_up(*backend, commit, 2 * (i / 12 % 4)).empty()) ++wrong;
        if (commit > 1 && backend->file_of(commit).path.empty()) ++wrong;
        ++reads;
      }
    });
  }
  std::thread committer([&] {
    for (int i = 0; i < 10; ++i) EXPECT_EQ(add_commit(*backend).to_string(), "ok");
  });
  for (std::uint64_t first = 1; first <= 9; first += 2) {
    EXPECT_EQ(rewrite(*backend, first, first + 1, keep_even, 2'000'000).to_string(), "ok");
  }
  EXPECT_EQ(rewrite(*backend, 1, 9, keep_even).to_string(), "ok");
  committer.join();
  while (reads < 100) std::this_thread::yield();
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(ranges(*backend).starts_with("1-10 11 12 13")) << ranges(*backend);
  EXPECT_EQ(tables().size(), backend->files().size()) << "old files are still there";
  expect_rows(*backend, 1, 10, odd);
  expect_rows(*backend, 11, 22, none);
}

TEST_F(RocksdbBackendTest, ARewriteIsDurableWhenItReturns) {
  auto backend = open_with(4, hooked());
  std::vector<std::string> steps;
  std::string written_table;
  hooks_.set([&](const std::string& what, const std::string& path) {
    const std::string name = fs::path(path).filename();
    if (what == "create" && name.ends_with(".sst")) written_table = name;
    const std::string kind = name.starts_with("MANIFEST") ? "manifest"
                             : name == written_table      ? "table"
                             : name.ends_with(".sst")     ? "old table"
                             : path == db().string()      ? "db"
                                                          : "other";
    const std::string step = what + " " + kind;
    if (kind != "other" && (steps.empty() || steps.back() != step)) steps.push_back(step);
    return rocksdb::IOStatus::OK();
  });
  ASSERT_EQ(rewrite(*backend, 1, 3, keep_even).to_string(), "ok");
  hooks_.set({});
  const auto at = [&](const std::string& step) {
    return std::ranges::find(steps, step) - steps.begin();
  };
  const auto size = static_cast<std::ptrdiff_t>(steps.size());
  EXPECT_LT(at("sync table"), at("append manifest")) << ::testing::PrintToString(steps);
  EXPECT_LT(at("sync_folder db"), at("append manifest")) << ::testing::PrintToString(steps);
  EXPECT_LT(at("append manifest"), at("sync manifest")) << ::testing::PrintToString(steps);
  EXPECT_LT(at("sync manifest"), at("delete old table")) << ::testing::PrintToString(steps);
  EXPECT_LT(at("delete old table"), size) << ::testing::PrintToString(steps);
}

TEST_F(RocksdbBackendTest, KilledWhileRewriting) {
  open_with(6);
  // Between the steps, and inside RocksDB's compaction.
  for (int point = 0; point < 6; ++point) {
    SCOPED_TRACE(point);
    const pid_t child = ::fork();
    if (child == 0) {
      StoreSeam seam;
      const Phase wanted = point % 2 == 0 ? Phase::rewrite : Phase::purge;
      seam.on_phase = [&](Phase phase) {
        if (point < 4 && phase == wanted) ::_exit(7);
      };
      auto backend = store_.open(seam);
      if (!backend.ok()) ::_exit(1);
      if (point == 2 || point == 3) {
        (void)(*backend)->remove(files_between(**backend, 1, 1));
        ::_exit(2);
      }
      int keys = 0;
      (void)rewrite(**backend, 2, 4, [&](const std::string& key) {
        if (point >= 4 && ++keys == (point == 4 ? 1 : 10)) ::_exit(7);
        return keep_even(key);
      });
      ::_exit(3);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(WEXITSTATUS(status), 7);
    auto backend = open();
    ASSERT_NE(backend, nullptr);
    EXPECT_EQ(backend->last_commit(), 6u);
    expect_rows(*backend, 1, 1, point >= 3 ? all : none);
    // From point 1 on the rewrite is in the manifest.
    expect_rows(*backend, 2, 4, point >= 1 ? odd : none);
    expect_rows(*backend, 5, 6, none);
    EXPECT_EQ(tables().size(), backend->files().size()) << "leftovers";
  }
}

TEST_F(RocksdbBackendTest, TornLeftoversAreHarmlessAndGo) {
  open_with(3);
  const std::string whole = read_text(open()->file_of(2).path);
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, whole.size() - 1}) {
    write_text(db() / "000900.sst", whole.substr(0, size));
    auto backend = open();
    ASSERT_NE(backend, nullptr);
    expect_rows(*backend, 1, 3, none);
    EXPECT_EQ(tables().size(), 3u);
  }
  // A whole file of commits that are all listed elsewhere.
  write_text(db() / "000900.sst", whole);
  EXPECT_NE(open(), nullptr);
  EXPECT_EQ(tables().size(), 3u);
}

TEST_F(RocksdbBackendTest, AManifestThatLostARewriteIsCorruption) {
  auto backend = open_with(5);
  const auto size = fs::file_size(manifest());
  ASSERT_EQ(rewrite(*backend, 2, 3, keep_even).to_string(), "ok");
  const std::string rewritten = fs::path(backend->file_of(2).path).filename();
  backend.reset();
  fs::resize_file(manifest(), size);
  const auto before = contents_of(store_.folder.root);
  const auto opened = store_.open();
  EXPECT_EQ(opened.status().code(), StatusCode::corruption);
  EXPECT_THAT(opened.status().message(), HasSubstr("MANIFEST"));
  EXPECT_THAT(opened.status().message(), HasSubstr("and 1 more, which are missing"));
  EXPECT_THAT(opened.status().message(), HasSubstr(rewritten));
  auto after = contents_of(store_.folder.root);
  EXPECT_EQ(after, before) << "a failed open changed the store";
  const auto view = open_view(store_.folder, {}, {});
  EXPECT_EQ(view.status().code(), StatusCode::corruption) << view.status().to_string();
  EXPECT_THAT(view.status().message(), HasSubstr("is missing"));
}

TEST_F(RocksdbBackendTest, AManifestThatLostCommitsIsCorruption) {
  auto backend = open_with(2);
  const auto size = fs::file_size(manifest());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(add_commit(*backend).ok());
  const std::string manifest_name = manifest();
  backend.reset();
  fs::resize_file(manifest_name, size);
  for (const bool staged : {true, false}) {
    if (!staged) fs::remove_all(store_.folder.stage());
    const auto opened = store_.open();
    EXPECT_EQ(opened.status().code(), StatusCode::corruption);
    EXPECT_THAT(opened.status().message(), HasSubstr("holds commit 4"));
  }
}

// Every operation of a rewrite fails in turn, with a commit to follow: nothing is ever lost.
TEST_F(RocksdbBackendTest, FailingWrites) {
  open_with(6);
  const fs::path kept = temp_.path() / "kept";
  fs::copy(store_.folder.root, kept, fs::copy_options::recursive);
  int failures = 0;
  bool hit = true;
  for (int operation = 1; hit; ++operation) {
    for (const bool for_good : {false, true}) {
      ASSERT_LT(operation, 100);
      SCOPED_TRACE(::testing::Message() << operation << " " << for_good);
      fs::remove_all(store_.folder.root);
      fs::copy(kept, store_.folder.root, fs::copy_options::recursive);
      auto backend = open(hooked());
      ASSERT_NE(backend, nullptr);
      std::atomic<int> countdown{operation};
      hooks_.set([&](const std::string&, const std::string&) {
        if (--countdown == 0 || (for_good && countdown < 0)) {
          return rocksdb::IOStatus::IOError("Input/output error (injected)");
        }
        return rocksdb::IOStatus::OK();
      });
      const Status status = rewrite(*backend, 2, 4, keep_even);
      Status removed;
      if (status.ok()) removed = backend->remove(files_between(*backend, 5, 5));
      hit = countdown <= 0;
      hooks_.set({});
      if (!status.ok() || !removed.ok()) ++failures;
      const auto check = [&](const Backend& in) {
        expect_rows(in, 1, 1, none);
        for (std::uint64_t commit = 2; commit <= 4; ++commit) {
          for (std::uint32_t row = 0; row < kRows; row += 2)
            EXPECT_EQ(look_up(in, commit, row), "");
        }
        if (!status.ok()) expect_rows(in, 5, 5, none);
        expect_rows(in, 6, 6, none);
      };
      check(*backend);
      if (for_good && !status.ok()) {  // opening for writing fails, too, and reads still go on
        countdown = 0;
        hooks_.set([&](const std::string&, const std::string&) {
          return rocksdb::IOStatus::IOError("Input/output error (injected)");
        });
        EXPECT_FALSE(add_commit(*backend).ok());
        hooks_.set({});
        EXPECT_TRUE(backend->closed());
        check(*backend);
      }
      ASSERT_EQ(add_commit(*backend).to_string(), "ok");
      EXPECT_FALSE(backend->closed());
      check(*backend);
      ASSERT_EQ(rewrite(*backend, 1, 4, keep_even).to_string(), "ok");
      backend.reset();
      backend = open();
      ASSERT_NE(backend, nullptr);
      expect_rows(*backend, 2, 4, odd);
      expect_rows(*backend, 7, 7, none);
      EXPECT_EQ(tables().size(), backend->files().size());
    }
  }
  EXPECT_GT(failures, 5);
}

// A failed ingest while others read, and while a rewrite is so slow that it must be stopped.
TEST_F(RocksdbBackendTest, ReopensBesideReadersAndASlowRewrite) {
  auto backend = open_with(6, hooked());
  std::atomic<bool> done{false};
  std::atomic<int> wrong{0};
  std::atomic<int> reads{0};
  std::vector<std::thread> readers;
  for (std::uint32_t reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      while (!done) {
        const std::uint64_t commit = 1 + static_cast<std::uint64_t>(reads++) % 6;
        const std::string found = look_up(*backend, commit, 2);
        if (!found.empty()) {
          ++wrong;
          ADD_FAILURE() << found;
        }
      }
    });
  }
  for (int round = 1; round <= 3; ++round) {
    std::atomic<bool> started{false};
    Status rewritten;
    std::thread rewriter([&] {
      rewritten = rewrite(
          *backend, 2, 4,
          [&](const std::string& key) {
            started = true;
            return keep_even(key);
          },
          100);  // bytes a second: it would take days
    });
    while (!started) std::this_thread::yield();
    // The disk works again as soon as the store is being opened anew.
    hooks_.set([&](const std::string& what, const std::string& path) {
      return what == "sync" && path.find("MANIFEST") != std::string::npos &&
                     backend->reopens() < static_cast<std::uint64_t>(round)
                 ? rocksdb::IOStatus::IOError("Input/output error (injected)")
                 : rocksdb::IOStatus::OK();
    });
    const Status status = add_commit(*backend);
    rewriter.join();
    hooks_.set({});
    EXPECT_FALSE(rewritten.ok());
    EXPECT_EQ(rewritten.code(), StatusCode::io_error) << rewritten.to_string();
    if (backend->closed()) {
      EXPECT_TRUE(backend->reopen().ok());
    }
    EXPECT_EQ(backend->last_commit(), backend->files().back().last_commit);
    if (status.ok()) expect_rows(*backend, backend->last_commit(), backend->last_commit(), none);
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(rewrite(*backend, 2, 4, keep_even).to_string(), "ok");
  expect_rows(*backend, 2, 4, odd);
  EXPECT_EQ(add_commit(*backend).to_string(), "ok");
  EXPECT_EQ(tables().size(), backend->files().size());
}

}  // namespace
}  // namespace perennial::storage::testing
