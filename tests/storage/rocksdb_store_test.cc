// SPDX-License-Identifier: Apache-2.0
// The durable store's folder: modes, lock, format, what opening does to stage/, bytes on disk.
#include "perennial/storage/rocksdb_store.h"

#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <set>

#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RocksdbStoreTest : public ::testing::Test {
 protected:
  fs::path path() const { return folder.path() / "store"; }

  std::unique_ptr<PageStore> open(OpenMode mode = OpenMode::existing) {
    auto result = open_rocksdb_store(path(), {.mode = mode});
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? std::move(*result) : nullptr;
  }
  Status open_status(OpenMode mode = OpenMode::existing) {
    return open_rocksdb_store(path(), {.mode = mode}).status();
  }
  void commit(PageStore& store, std::uint64_t seed) {
    Change change(model);
    change.page(weights(static_cast<std::uint32_t>(seed), 0), seed).dense("d", bytes_of(seed, 99));
    const auto info = store.commit(change.get());
    ASSERT_TRUE(info.ok()) << info.status().to_string();
  }
  std::set<std::string> staged() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(path() / "stage")) {
      names.insert(entry.path().filename());
    }
    return names;
  }

  TempFolder folder;
  Model model;
};

TEST_F(RocksdbStoreTest, ModesOnNothing) {
  EXPECT_EQ(open_status(OpenMode::existing).code(), StatusCode::not_found);
  EXPECT_FALSE(fs::exists(path()));
  EXPECT_TRUE(open_status(OpenMode::either).ok());
  EXPECT_TRUE(open_status(OpenMode::either).ok());
  EXPECT_TRUE(open_status(OpenMode::existing).ok());
  const auto before = contents_of(path());
  EXPECT_EQ(open_status(OpenMode::create).code(), StatusCode::invalid_argument);
  EXPECT_EQ(contents_of(path()), before);
}

TEST_F(RocksdbStoreTest, CreatesInAnEmptyFolderAndBelowMissingOnes) {
  fs::create_directory(path());
  EXPECT_EQ(open_status(OpenMode::existing).code(), StatusCode::not_found);
  EXPECT_TRUE(fs::is_empty(path()));
  EXPECT_TRUE(open_status(OpenMode::create).ok());
  EXPECT_TRUE(open_rocksdb_store(folder.path() / "a/b/c", {.mode = OpenMode::create}).ok());
  struct stat status {};
  ASSERT_EQ(::stat((folder.path() / "a/b/c").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(RocksdbStoreTest, LeavesOtherFoldersAndFilesAlone) {
  fs::create_directory(path());
  write_text(path() / "thesis.txt", "my thesis");
  for (const OpenMode mode : {OpenMode::create, OpenMode::existing, OpenMode::either}) {
    const Status status = open_status(mode);
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_THAT(status.message(), HasSubstr("thesis.txt"));
  }
  EXPECT_EQ(contents_of(path()).size(), 1u);
  write_text(folder.path() / "file", "x");
  EXPECT_EQ(open_rocksdb_store(folder.path() / "file").status().code(),
            StatusCode::invalid_argument);
  EXPECT_FALSE(open_rocksdb_store(folder.path() / "file/x", {.mode = OpenMode::create}).ok());
}

TEST_F(RocksdbStoreTest, RefusesBadOptions) {
  const auto result = open_rocksdb_store(path(), {.mode = OpenMode::create, .full_table_every = 0});
  EXPECT_EQ(result.status().code(), StatusCode::invalid_argument);
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(RocksdbStoreTest, ReadOnlyFolders) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs to change user";
  open(OpenMode::create);
  ::chmod(folder.path().c_str(), 0755);
  ::chmod(path().c_str(), 0755);
  const auto before = contents_of(path());
  ASSERT_EQ(::seteuid(65534), 0);
  const Status existing = open_status(OpenMode::existing);
  const Status create =
      open_rocksdb_store(folder.path() / "new", {.mode = OpenMode::create}).status();
  ASSERT_EQ(::seteuid(0), 0);
  EXPECT_EQ(existing.code(), StatusCode::io_error) << existing.to_string();
  EXPECT_THAT(existing.message(), HasSubstr("Permission denied"));
  EXPECT_EQ(create.code(), StatusCode::io_error) << create.to_string();
  EXPECT_EQ(contents_of(path()), before);
  EXPECT_FALSE(fs::exists(folder.path() / "new"));
}

TEST_F(RocksdbStoreTest, ANewerFormatIsAVersionMismatch) {
  open(OpenMode::create);
  const std::string line = "perennial-store 7\n";
  write_text(path() / "FORMAT",
             line + "xxh3-128 " + digest_of(std::as_bytes(std::span(line))).hex() + "\nnew things");
  const auto before = contents_of(path());
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::version_mismatch);
  EXPECT_THAT(status.message(), HasSubstr("format 7"));
  EXPECT_EQ(contents_of(path()), before);
}

TEST_F(RocksdbStoreTest, AnInterruptedCreationIsNoStoreAndCanBeDoneAgain) {
  open(OpenMode::create);
  fs::remove(path() / "FORMAT");
  const auto before = contents_of(path());
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::not_found);
  EXPECT_THAT(status.message(), HasSubstr("interrupted"));
  EXPECT_EQ(contents_of(path()), before);
  commit(*open(OpenMode::either), 1);
  EXPECT_EQ(difference(*open(), model), "");
}

TEST_F(RocksdbStoreTest, BusyNamesTheHolder) {
  const auto store = open(OpenMode::create);
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::busy);
  EXPECT_THAT(status.message(), HasSubstr("pid " + std::to_string(::getpid())));
  EXPECT_THAT(status.message(), HasSubstr(program_invocation_short_name));
  EXPECT_EQ(open_status(OpenMode::either).code(), StatusCode::busy);
}

TEST_F(RocksdbStoreTest, StaleLockContentIsNoObstacle) {
  open(OpenMode::create);
  write_text(path() / "LOCK", "pid 1 on elsewhere since yesterday: init\n");
  EXPECT_NE(open(), nullptr);
  EXPECT_EQ(read_text(path() / "LOCK"), "");
  fs::remove(path() / "LOCK");
  EXPECT_NE(open(), nullptr);
}

TEST_F(RocksdbStoreTest, AFailedOpenPutsTheLockBack) {
  open(OpenMode::create);
  write_text(path() / "LOCK", "an old holder\n");
  write_text(path() / "db" / "CURRENT", "nonsense");
  const auto before = contents_of(path());
  EXPECT_EQ(open_status().code(), StatusCode::corruption);
  EXPECT_EQ(contents_of(path()), before);
  fs::remove(path() / "LOCK");
  EXPECT_EQ(open_status().code(), StatusCode::corruption);
  EXPECT_FALSE(fs::exists(path() / "LOCK"));
}

TEST_F(RocksdbStoreTest, ChildrenDoNotKeepTheLock) {
  auto store = open(OpenMode::create);
  commit(*store, 1);
  int ready[2];
  int finish[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(finish), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    CommitRequest request;
    const char refused = store->commit(request).status().code() == StatusCode::busy ? 'y' : 'n';
    (void)!::write(ready[1], &refused, 1);
    char byte = 0;
    (void)!::read(finish[0], &byte, 1);
    ::_exit(0);
  }
  char refused = 0;
  ASSERT_EQ(::read(ready[0], &refused, 1), 1);
  EXPECT_EQ(refused, 'y') << "a forked child must not write";
  // The parent still holds it, the child does not.
  EXPECT_EQ(open_status().code(), StatusCode::busy);
  pid_t sleeper = 0;
  std::string program = "sleep";
  std::string argument = "60";
  char* arguments[] = {program.data(), argument.data(), nullptr};
  ASSERT_EQ(::posix_spawnp(&sleeper, "sleep", nullptr, nullptr, arguments, environ), 0);
  store.reset();
  EXPECT_TRUE(open_status().ok()) << "forked and spawned children are alive";
  ::kill(sleeper, SIGKILL);
  ::waitpid(sleeper, nullptr, 0);
  ASSERT_EQ(::write(finish[1], "x", 1), 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(difference(*open(), model), "");
}

TEST_F(RocksdbStoreTest, StageHoldsALinkOfTheNewestCommitOnly) {
  auto store = open(OpenMode::create);
  commit(*store, 1);
  EXPECT_EQ(staged(), std::set<std::string>{"1.sst"});
  commit(*store, 2);
  EXPECT_EQ(staged(), std::set<std::string>{"2.sst"});
  EXPECT_EQ(fs::hard_link_count(path() / "stage/2.sst"), 2u);
  EXPECT_LT(*store->size_bytes(), 200'000u);
  store.reset();
  for (const char* name : {"1.sst", "3.building", "2.ingest", "spill.abc", "junk"}) {
    write_text(path() / "stage" / name, "left behind");
  }
  EXPECT_EQ(difference(*open(), model), "");
  EXPECT_EQ(staged(), std::set<std::string>{"2.sst"});
}

// The file was whole in stage/ when the power went.
TEST_F(RocksdbStoreTest, AWholeStagedCommitIsAdded) {
  auto store = open(OpenMode::create);
  commit(*store, 1);
  store.reset();
  const Model before = model;
  const fs::path earlier = folder.path() / "earlier";
  fs::copy(path(), earlier, fs::copy_options::recursive);
  store = open();
  commit(*store, 2);
  store.reset();
  const std::string file = read_text(path() / "stage/2.sst");

  write_text(earlier / "stage/2.sst", file);
  {
    auto added = open_rocksdb_store(earlier);
    ASSERT_TRUE(added.ok()) << added.status().to_string();
    EXPECT_EQ((*added)->head()->commit, 2u);
    EXPECT_EQ(difference(**added, model), "");
    EXPECT_TRUE((*added)->verify()->damage.empty());
  }
  // Half a file, a file under a wrong number, a damaged one: never acknowledged, dropped. (What is
  // in the manifest decides: take a fresh copy of the earlier store each time.)
  for (std::size_t at = 0; at < file.size(); at += 1 + file.size() / 60) {
    const fs::path again = folder.path() / "again";
    fs::remove_all(again);
    fs::copy(earlier, again, fs::copy_options::recursive);
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    write_text(again / "stage/3.sst", at % 2 == 0 ? file.substr(0, at) : damaged);
    auto result = open_rocksdb_store(again);
    ASSERT_TRUE(result.ok()) << result.status().to_string();
    EXPECT_EQ((*result)->head()->commit, 2u);
    EXPECT_FALSE(fs::exists(again / "stage/3.sst"));
  }
}

TEST_F(RocksdbStoreTest, ALaterStagedCommitMeansThatTheManifestLostSome) {
  auto store = open(OpenMode::create);
  commit(*store, 1);
  store.reset();
  fs::copy_file(path() / "stage/1.sst", path() / "stage/4.sst");
  const auto before = contents_of(path());
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::corruption);
  EXPECT_THAT(status.message(), HasSubstr("MANIFEST"));
  EXPECT_THAT(status.message(), HasSubstr("4.sst"));
  EXPECT_EQ(contents_of(path()), before);
}

TEST_F(RocksdbStoreTest, MissingStageAndRunsFoldersComeBack) {
  commit(*open(OpenMode::create), 1);
  fs::remove_all(path() / "stage");
  fs::remove_all(path() / "runs");
  auto store = open();
  EXPECT_EQ(difference(*store, model), "");
  commit(*store, 2);
  EXPECT_TRUE(fs::is_directory(path() / "runs"));
}

TEST_F(RocksdbStoreTest, WritesHardlyMoreThanThePages) {
  auto store = open(OpenMode::create);
  Change first(model);
  for (std::uint32_t row = 0; row < 256; ++row) first.page(weights(row, 0), row, shape_of(32, 512));
  const auto info = store->commit(first.get());
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->bytes_written, 256u * 65'536);
  EXPECT_LE(info->file_bytes, info->bytes_written * 103 / 100);
  const std::uint64_t size = *store->size_bytes();
  EXPECT_LE(size, info->bytes_written * 103 / 100);
  Change one(model);
  one.page(weights(3, 0), 999, shape_of(32, 512));
  const auto small = store->commit(one.get());
  ASSERT_TRUE(small.ok());
  EXPECT_LT(small->file_bytes, 2u * 65'536);
  EXPECT_LT(*store->size_bytes() - size, 3u * 65'536);
}

TEST_F(RocksdbStoreTest, ManyOpensLeaveFewFiles) {
  open(OpenMode::create);
  for (int i = 0; i < 8; ++i) commit(*open(), static_cast<std::uint64_t>(i));
  std::size_t files = 0;
  std::uint64_t bytes = 0;
  std::string names;
  for (const auto& entry : fs::directory_iterator(path() / "db")) {
    if (entry.path().extension() == ".sst") continue;
    ++files;
    names += entry.path().filename().string() + " ";
    bytes += entry.file_size();
  }
  EXPECT_LE(files, 12u) << names;
  EXPECT_LE(bytes, 100'000u);
}

}  // namespace
}  // namespace perennial::storage::testing
