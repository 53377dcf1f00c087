// SPDX-License-Identifier: Apache-2.0
// Values by one read: where that works, where RocksDB is asked instead, and what damage does.
#include "table_reads.h"

#include <thread>

#include "backend_testing.h"
#include "page_locator.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;

enum class Reading { whole, fails, is_short };

struct ReadFaults {
  std::atomic<Reading> reading{Reading::whole};
  std::atomic<int> reads{0};  // of table files
  std::atomic<int> direct{0};
};

class FaultyTable final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  FaultyTable(std::unique_ptr<rocksdb::FSRandomAccessFile>&& file, ReadFaults& faults)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), faults_(faults) {}
  rocksdb::IOStatus Read(std::uint64_t offset, std::size_t bytes, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* debug) const override {
    ++faults_.reads;
    const Reading reading = faults_.reading;
    if (reading == Reading::fails) return rocksdb::IOStatus::IOError("injected");
    return FSRandomAccessFileOwnerWrapper::Read(
        offset, reading == Reading::is_short ? bytes / 2 : bytes, options, result, scratch, debug);
  }

 private:
  ReadFaults& faults_;
};

class FaultyTables final : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyTables(ReadFaults& faults)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), faults_(faults) {}
  const char* Name() const override { return "FaultyTables"; }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> inner;
    auto status = target()->NewRandomAccessFile(name, options, &inner, debug);
    if (!status.ok()) return status;
    if (options.use_direct_reads) ++faults_.direct;
    *file = std::make_unique<FaultyTable>(std::move(inner), faults_);
    return status;
  }

 private:
  ReadFaults& faults_;
};

// "": the value is there; "gone", or what is wrong.
std::string look_up_known(const Backend& backend, std::uint64_t commit, std::uint32_t row,
                          std::size_t value_bytes = 5000) {
  const Bytes expected = row_value(commit, row, value_bytes);
  const Status status = backend.get_known(row_key(commit, row), value_bytes,
                                          [&](std::span<const std::byte> value) -> Status {
                                            if (std::ranges::equal(value, expected)) return {};
                                            return {StatusCode::corruption, "other bytes"};
                                          });
  if (status.code() == StatusCode::not_found) return "gone";
  return status.ok() ? "" : status.to_string();
}

void expect_known(const Backend& backend, std::uint64_t commit, std::size_t value_bytes = 5000) {
  for (std::uint32_t row = 0; row < kRows; ++row) {
    EXPECT_EQ(look_up_known(backend, commit, row, value_bytes), "") << commit << " " << row;
  }
}

class TableReadsTest : public RocksdbBackendTest {
 protected:
  std::unique_ptr<RocksdbBackend> open_faulty(RocksdbStoreOptions options = {}) {
    return open({.env = faulty_.get(), .on_phase = {}}, options);
  }
  // Flips a byte `into` bytes after the start of the block that holds a row.
  void flip(const Backend& backend, std::uint64_t commit, std::uint32_t row, std::uint64_t into) {
    const fs::path path = backend.file_of(commit).path;
    const auto locator = PageLocator::read(path);
    ASSERT_TRUE(locator.ok());
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    const auto at =
        static_cast<std::streamoff>(locator->find(row_key(commit, row), 5000)->offset + into);
    file.seekg(at);
    const int old = file.get();
    file.seekp(at);
    file.put(static_cast<char>(old ^ 4));
  }

  ReadFaults faults_;
  std::unique_ptr<rocksdb::Env> faulty_ =
      rocksdb::NewCompositeEnv(std::make_shared<FaultyTables>(faults_));
};

TEST_F(TableReadsTest, OneReadAPage) {
  open_with(2).reset();
  const auto backend = open_faulty();
  expect_known(*backend, 1);
  EXPECT_EQ(backend->single_reads(), kRows);
  faults_.reads = 0;
  expect_known(*backend, 1);
  EXPECT_EQ(faults_.reads, int{kRows});
  EXPECT_EQ(backend->single_reads(), 2 * kRows);
}

TEST_F(TableReadsTest, PastTheCache) {
  open_with(1).reset();
  auto opened = store_.open({.env = faulty_.get(), .on_phase = {}}, {.direct_reads = true});
  if (!opened.ok()) {
    EXPECT_EQ(opened.status().code(), StatusCode::invalid_argument);
    GTEST_SKIP() << "this file system has none";
  }
  ASSERT_EQ(add_commit(**opened, 70'001).to_string(), "ok");
  faults_.direct = 0;
  expect_known(**opened, 1);
  expect_known(**opened, 2, 70'001);
  EXPECT_EQ(faults_.direct, 2);
  EXPECT_EQ((*opened)->single_reads(), 2 * kRows);
}

TEST_F(TableReadsTest, RocksdbAnswersWhereOneReadCannot) {
  auto backend = open_with(1);
  ASSERT_EQ(add_commit(*backend, 300).to_string(), "ok");
  expect_known(*backend, 2, 300);  // values that share blocks
  EXPECT_EQ(look_up_known(*backend, 3, 0), "gone");
  EXPECT_EQ(look_up_known(*backend, 1, kRows), "gone");
  EXPECT_EQ(backend->single_reads(), 0u);
  // Another size than expected: `visit` sees what is there.
  EXPECT_NE(look_up_known(*backend, 1, 0, 6000), "");
  EXPECT_EQ(look_up_known(*backend, 1, 0), "");
  EXPECT_EQ(backend->single_reads(), 1u);
}

TEST_F(TableReadsTest, AViewToo) {
  auto backend = open_with(2);
  const auto view = open_view(store_.folder, {}, {});
  ASSERT_TRUE(view.ok()) << view.status().to_string();
  ASSERT_EQ(rewrite(*backend, 1, 1, keep_even).to_string(), "ok");
  expect_known(**view, 1);
  expect_known(**view, 2);
  EXPECT_EQ((*view)->single_reads(), 2 * kRows);
}

TEST_F(TableReadsTest, AFailingDisk) {
  open_with(1).reset();
  auto backend = open_faulty();
  for (const Reading reading : {Reading::fails, Reading::is_short}) {
    faults_.reading = reading;
    const std::uint64_t before = backend->single_reads();
    EXPECT_NE(look_up_known(*backend, 1, 0), "");
    EXPECT_EQ(backend->single_reads(), before);
    faults_.reading = Reading::whole;
    EXPECT_EQ(look_up_known(*backend, 1, 0), "");
    EXPECT_EQ(backend->single_reads(), before + 1);
  }
}

TEST_F(TableReadsTest, AFlippedByteIsFound) {
  auto backend = open_with(2);
  expect_known(*backend, 1);
  flip(*backend, 1, 3, 2000);  // in the value
  flip(*backend, 1, 5, 4);     // in the key before it
  const std::uint64_t before = backend->single_reads();
  for (std::uint32_t row = 0; row < kRows; ++row) {
    const std::string found = look_up_known(*backend, 1, row);
    if (row == 3 || row == 5) {
      EXPECT_THAT(found, ::testing::HasSubstr("corruption"));
    } else {
      EXPECT_EQ(found, "");
    }
  }
  EXPECT_EQ(backend->single_reads(), before + kRows - 2);
  std::vector<Damage> damage;
  backend->verify_files(damage, {});
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_EQ(damage[0].file, backend->file_of(1).path);
}

// The descriptors of table files that are no longer there.
int deleted_tables() {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code code;
    const std::string target = fs::read_symlink(entry.path(), code).string();
    count += target.find(".sst (deleted)") != std::string::npos;
  }
  return count;
}

TEST_F(TableReadsTest, WhileFilesAreRewrittenRemovedAndReopened) {
  auto backend = open_with(12, hooked());
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (std::uint32_t i = 0; i < 3; ++i) {
    readers.emplace_back([&, i] {
      for (std::uint32_t n = i; !stop; ++n) {
        const std::uint64_t commit = 4 + n % 9;
        const std::uint32_t row = n / 9 % (kRows / 2) * 2;
        EXPECT_EQ(look_up_known(*backend, commit, row), "") << commit << " " << row;
      }
    });
  }
  for (std::uint64_t first = 4; first <= 8; ++first) {
    EXPECT_EQ(rewrite(*backend, first, first, keep_even).to_string(), "ok");
    if (first < 7) {
      EXPECT_EQ(backend->remove(files_between(*backend, first - 3, first - 3)).to_string(), "ok");
    }
    EXPECT_EQ(add_commit(*backend).to_string(), "ok");
    hooks_.set([](const std::string& what, const std::string& path) {
      return what == "sync" && path.find("MANIFEST") != std::string::npos
                 ? rocksdb::IOStatus::IOError("injected")
                 : rocksdb::IOStatus::OK();
    });
    EXPECT_FALSE(rewrite(*backend, 9, 9, keep_even).ok());
    hooks_.set({});
    EXPECT_EQ(backend->reopen().to_string(), "ok");
  }
  EXPECT_EQ(rewrite(*backend, 4, 9, keep_even).to_string(), "ok");
  stop = true;
  for (std::thread& reader : readers) reader.join();
  expect_known(*backend, 10);
  EXPECT_GT(backend->single_reads(), kRows);
  EXPECT_EQ(deleted_tables(), 0);
}

// More files than are kept open.
TEST_F(TableReadsTest, ManyFiles) {
  auto backend = open();
  for (int i = 0; i < 300; ++i) ASSERT_EQ(add_commit(*backend).to_string(), "ok");
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t commit = 1; commit <= 300; ++commit) {
      ASSERT_EQ(look_up_known(*backend, commit, commit % kRows), "");
    }
  }
  EXPECT_EQ(backend->single_reads(), 600u);
}

}  // namespace
}  // namespace perennial::storage::testing
