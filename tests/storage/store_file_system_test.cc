// SPDX-License-Identifier: Apache-2.0
// What the store's file system adds: the order around CURRENT, reads before an ingest, and
// manifests that end in garbage.
#include "store_file_system.h"

#include "backend_testing.h"

namespace perennial::storage::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(RocksdbBackendTest, SyncsTheFolderBeforeCurrentIsReplaced) {
  std::vector<std::string> steps;
  hooks_.set([&](const std::string& what, const std::string& path) {
    steps.push_back(what + " " + std::filesystem::path(path).filename().string());
    return rocksdb::IOStatus::OK();
  });
  open(hooked()).reset();
  int replaced = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (steps[i] != "rename CURRENT") continue;
    ++replaced;
    ASSERT_GT(i, 0u);
    EXPECT_EQ(steps[i - 1], "sync_folder db");
  }
  EXPECT_GT(replaced, 0);
}

// Fails or cuts short the first reads of a file that is to be ingested.
struct IngestFaults {
  std::atomic<int> failing{0};
  std::atomic<int> reads{0};
  bool halves = false;
};

class FaultyIngest final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  FaultyIngest(std::unique_ptr<rocksdb::FSRandomAccessFile>&& file, IngestFaults& faults)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), faults_(faults) {}
  rocksdb::IOStatus Read(std::uint64_t offset, std::size_t bytes, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* debug) const override {
    ++faults_.reads;
    const bool fails = faults_.failing-- > 0;
    if (fails && !faults_.halves) return rocksdb::IOStatus::IOError("injected");
    return FSRandomAccessFileOwnerWrapper::Read(offset, fails ? bytes / 2 : bytes, options, result,
                                                scratch, debug);
  }

 private:
  IngestFaults& faults_;
};

class FaultyIngests final : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyIngests(IngestFaults& faults)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), faults_(faults) {}
  const char* Name() const override { return "FaultyIngests"; }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> inner;
    auto status = target()->NewRandomAccessFile(name, options, &inner, debug);
    if (!status.ok()) return status;
    *file = name.ends_with(".ingest") ? std::make_unique<FaultyIngest>(std::move(inner), faults_)
                                      : std::move(inner);
    return status;
  }

 private:
  IngestFaults& faults_;
};

// Every read of the ingest in turn, once (which the store gets over) and for good.
TEST_F(RocksdbBackendTest, ReadsThatFailWhileACommitIsIngested) {
  IngestFaults faults;
  const auto env = rocksdb::NewCompositeEnv(std::make_shared<FaultyIngests>(faults));
  auto backend = open({.env = env.get(), .on_phase = {}});
  ASSERT_EQ(add_commit(*backend).to_string(), "ok");
  const int reads = faults.reads;
  EXPECT_GE(reads, 4);
  std::uint64_t commit = 1;
  for (const bool halves : {false, true}) {
    faults.halves = halves;
    for (const int failing : {1, 2, 3, 1000}) {
      faults.failing = failing;
      const Status status = add_commit(*backend);
      faults.failing = 0;
      EXPECT_EQ(status.ok(), failing < 3) << status.to_string();
      commit += failing < 3;
      EXPECT_EQ(backend->last_commit(), commit);
    }
  }
  faults.halves = false;
  EXPECT_EQ(add_commit(*backend).to_string(), "ok");
  expect_rows(*backend, 1, commit + 1, none);
  backend.reset();
  expect_rows(*open(), 1, commit + 1, none);
}

class ManifestEndTest : public RocksdbBackendTest {
 protected:
  void append_to_manifest(const std::string& tail) {
    std::ofstream file(manifest(), std::ios::binary | std::ios::app);
    file << tail;
  }
};

TEST_F(ManifestEndTest, GarbageAfterTheLastRecordIsNotRead) {
  std::uint64_t seed = 1;
  std::uint64_t commits = 3;
  open_with(3);
  for (const std::size_t bytes : {1u, 6u, 7u, 8u, 300u, 40'000u, 100'000u}) {
    std::string garbage(bytes, '\0');
    const Bytes random = bytes_of(seed++, bytes);
    std::memcpy(garbage.data(), random.data(), bytes);
    for (const std::string& tail :
         {garbage, std::string(bytes, '\0'), std::string("\1\2\3\4\5\0\1hello", 12) + garbage}) {
      append_to_manifest(tail);
      auto backend = open();
      ASSERT_NE(backend, nullptr) << bytes;
      EXPECT_EQ(backend->last_commit(), commits);
      ASSERT_EQ(add_commit(*backend).to_string(), "ok");
      ++commits;
    }
  }
  expect_rows(*open(), 1, commits, none);
}

// A manifest of several blocks, in which records are split.
TEST_F(ManifestEndTest, LongManifests) {
  open_with(400);
  ASSERT_GT(std::filesystem::file_size(manifest()), 40'000u);
  append_to_manifest("garbage that is longer than a header");
  const auto backend = open();
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->last_commit(), 400u);
}

// A byte of an edit of the past: all after it is gone, and the files of those commits say so.
TEST_F(ManifestEndTest, DamageBeforeTheEndIsCorruption) {
  open_with(6);
  const auto size = std::filesystem::file_size(manifest());
  const std::string text = read_text(manifest());
  // The edits of commits 1 to 6 are the last ones; about the middle of them.
  const std::size_t at = text.size() / 2;
  std::string damaged = text;
  damaged[at] = static_cast<char>(damaged[at] ^ 1);
  write_text(manifest(), damaged);
  const auto opened = store_.open();
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), StatusCode::corruption);
  EXPECT_THAT(opened.status().message(), HasSubstr("MANIFEST"));
  EXPECT_EQ(std::filesystem::file_size(manifest()), size);
  write_text(manifest(), text);
  EXPECT_EQ(open()->last_commit(), 6u);
}

// A view looks for nothing that is lost: it does not cut.
TEST_F(ManifestEndTest, AViewDoesNotOpenOnGarbage) {
  open_with(3);
  append_to_manifest(std::string("\1\2\3\4\5\0\1hello", 12));
  EXPECT_FALSE(open_view(store_.folder, {}, {}).ok());
  open().reset();
  EXPECT_TRUE(open_view(store_.folder, {}, {}).ok());
}

}  // namespace
}  // namespace perennial::storage::testing
