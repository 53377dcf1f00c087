// SPDX-License-Identifier: Apache-2.0
// The durable backend on its own: files of several commits, rewriting and removing them.
#include "backend_testing.h"

namespace perennial::storage::testing {
namespace {

TEST_F(RocksdbBackendTest, FilesOfSeveralCommitsAndGaps) {
  auto backend = open_with(8);
  EXPECT_EQ(ranges(*backend), "1 2 3 4 5 6 7 8");
  std::uint64_t written = 0;
  ASSERT_EQ(backend->rewrite(files_between(*backend, 3, 5), keep_all, 0, 0, written).to_string(),
            "ok");
  EXPECT_GT(written, 3 * kRows * 5000u);
  EXPECT_LT(written, 3 * kRows * 5500u);
  ASSERT_EQ(backend->remove(files_between(*backend, 1, 1)).to_string(), "ok");
  ASSERT_EQ(backend->remove(files_between(*backend, 6, 6)).to_string(), "ok");
  EXPECT_EQ(ranges(*backend), "2 3-5 7 8");
  EXPECT_EQ(tables().size(), 4u);
  EXPECT_EQ(backend->file_of(4).first_commit, 3u);
  EXPECT_EQ(backend->file_of(4).last_commit, 5u);
  EXPECT_EQ(backend->file_of(6).path, "");
  EXPECT_EQ(backend->file_of(9).bytes, 0u);
  ASSERT_EQ(rewrite(*backend, 2, 3, keep_even).to_string(), "ok");
  const auto check = [&] {
    EXPECT_EQ(ranges(*backend), "2-5 7 8");
    EXPECT_EQ(backend->last_commit(), 8u);
    expect_rows(*backend, 1, 1, all);
    expect_rows(*backend, 2, 5, odd);
    expect_rows(*backend, 6, 6, all);
    expect_rows(*backend, 7, 8, none);
    std::vector<Damage> damage;
    backend->verify_files(damage, {});
    EXPECT_TRUE(damage.empty());
  };
  check();
  backend.reset();
  backend = open();
  check();
  ASSERT_EQ(add_commit(*backend).to_string(), "ok");
  EXPECT_EQ(ranges(*backend), "2-5 7 8 9");
}

// A record may go, and with it the end of a file's range.
TEST_F(RocksdbBackendTest, RangesFollowWhatIsLeft) {
  auto backend = open_with(5);
  ASSERT_EQ(rewrite(*backend, 1, 4,
                    [](const std::string& key) {
                      const auto commit = *commit_of_key(key);
                      return commit == 2 || (commit == 3 && key == row_key(3, 1));
                    })
                .to_string(),
            "ok");
  EXPECT_EQ(ranges(*backend), "2-3 5");
  ASSERT_EQ(rewrite(*backend, 2, 2, [](const std::string&) { return false; }).to_string(), "ok");
  EXPECT_EQ(ranges(*backend), "5");
  EXPECT_EQ(tables().size(), 1u);
  backend.reset();
  backend = open();
  EXPECT_EQ(ranges(*backend), "5");
  EXPECT_EQ(backend->last_commit(), 5u);
}

TEST_F(RocksdbBackendTest, RefusesTheNewestCommitAndWhatIsNotThere) {
  auto backend = open_with(4);
  EXPECT_EQ(rewrite(*backend, 4, 4, keep_all).code(), StatusCode::invalid_argument);
  EXPECT_EQ(backend->remove(files_between(*backend, 3, 4)).code(), StatusCode::invalid_argument);
  std::vector<BackendFile> files = {files_between(*backend, 1, 1)[0],
                                    files_between(*backend, 3, 3)[0]};
  std::uint64_t written = 0;
  EXPECT_EQ(backend->rewrite(files, keep_all, 0, 0, written).code(), StatusCode::invalid_argument);
  files.pop_back();
  files[0].last_commit = 2;
  EXPECT_EQ(backend->remove(files).code(), StatusCode::invalid_argument);
  EXPECT_EQ(written, 0u);
  EXPECT_EQ(ranges(*backend), "1 2 3 4");
  EXPECT_EQ(add_commit(*backend).to_string(), "ok");
}

TEST_F(RocksdbBackendTest, RemovedAndRewrittenSpaceComesBack) {
  auto backend = open();
  for (int i = 0; i < 6; ++i) ASSERT_EQ(add_commit(*backend, 200'000).to_string(), "ok");
  const std::uint64_t commit_bytes = kRows * 200'000u;
  const std::uint64_t before = *backend->size_bytes();
  EXPECT_LT(before, 6 * commit_bytes * 103 / 100) << "the staged twin was counted";
  ASSERT_EQ(backend->remove(files_between(*backend, 2, 3)).to_string(), "ok");
  EXPECT_LT(*backend->size_bytes(), before - 2 * commit_bytes);
  const std::uint64_t removed = *backend->size_bytes();
  ASSERT_EQ(rewrite(*backend, 4, 5, keep_even).to_string(), "ok");
  EXPECT_LT(*backend->size_bytes(), removed - commit_bytes * 99 / 100);
  EXPECT_EQ(look_up(*backend, 1, 3, 200'000), "");
  EXPECT_EQ(look_up(*backend, 4, 2, 200'000), "");
  EXPECT_EQ(look_up(*backend, 4, 3, 200'000), "gone");
  EXPECT_EQ(look_up(*backend, 6, 3, 200'000), "");
}

TEST_F(RocksdbBackendTest, ReadsWithinReads) {
  auto backend = open_with(2);
  std::string inner = "not called";
  EXPECT_TRUE(backend
                  ->get(row_key(1, 0),
                        [&](std::span<const std::byte>) {
                          inner = look_up(*backend, 2, 1);
                          return Status();
                        })
                  .ok());
  EXPECT_EQ(inner, "");
}

// What a commit adds to the list of files is what listing them all gives.
TEST_F(RocksdbBackendTest, TheListOfFilesGrowsAsIfItWereListedAnew) {
  const auto list = [](const Backend& backend) {
    std::string text;
    for (const BackendFile& file : backend.files()) {
      text += file.path + " " + std::to_string(file.first_commit) + "-" +
              std::to_string(file.last_commit) + " " + std::to_string(file.bytes) + "\n";
    }
    return text;
  };
  for (int run = 0; run < 3; ++run) {
    auto backend = open_with(70);
    const std::vector<BackendFile> early = files_between(*backend, 1, 1000);
    const std::uint64_t first = early[early.size() - 5].first_commit;
    ASSERT_EQ(rewrite(*backend, first, first + 2, keep_even).to_string(), "ok");
    ASSERT_EQ(add_commit(*backend).to_string(), "ok");
    std::vector<Damage> damage;
    backend->verify_files(damage, {});
    EXPECT_TRUE(damage.empty());
    const std::string grown = list(*backend);
    backend.reset();
    EXPECT_EQ(list(*open()), grown);
  }
}

TEST(CommitFiles, ListsShareWhatTheyHaveInCommon) {
  const auto file = [](std::uint64_t commit) {
    CommitFile made;
    made.path = std::to_string(commit);
    made.first_commit = made.last_commit = commit;
    return made;
  };
  std::vector<CommitFiles> lists(1);
  for (std::uint64_t commit = 1; commit <= 300; ++commit) {
    lists.push_back(lists.back().with(file(commit)));
  }
  // Two that go on from the same list.
  const CommitFiles other = lists[200].with(file(1000));
  for (std::size_t length = 0; length < lists.size(); ++length) {
    ASSERT_EQ(lists[length].size(), length);
    for (std::size_t i = 0; i < length; ++i) ASSERT_EQ(lists[length][i].last_commit, i + 1);
  }
  EXPECT_EQ(other.size(), 201u);
  EXPECT_EQ(other[199].path, "200");
  EXPECT_EQ(other.back().path, "1000");
}

TEST_F(RocksdbBackendTest, DirectReads) {
  open_with(3);
  auto direct = store_.open({}, {.direct_reads = true});
  if (!direct.ok()) {
    EXPECT_EQ(direct.status().code(), StatusCode::invalid_argument) << direct.status().to_string();
    GTEST_SKIP() << "this file system has none";
  }
  expect_rows(**direct, 1, 3, none);
  ASSERT_EQ(rewrite(**direct, 1, 2, keep_even).to_string(), "ok");
  expect_rows(**direct, 1, 2, odd);
  const auto view = open_view(store_.folder, {.snapshot = "", .direct_reads = true}, {});
  ASSERT_TRUE(view.ok());
  expect_rows(**view, 1, 2, odd);
}

}  // namespace
}  // namespace perennial::storage::testing
