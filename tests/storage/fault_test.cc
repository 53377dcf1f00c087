// SPDX-License-Identifier: Apache-2.0
// Failing writes: at every operation in turn, once or for good, as a full disk or a broken one.
// The state is untouched or whole, what commit() returns is the truth, and the next commit works.
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <atomic>
#include <memory>

#include "rocksdb_store_internal.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

enum class Fault { no_space, io_error };

// Counts the operations that change the disk, and fails the chosen ones.
struct FaultPlan {
  std::atomic<int> countdown{0};  // the operation that fails first; 0: none
  std::atomic<bool> for_good{false};
  std::atomic<Fault> fault{Fault::io_error};
  std::atomic<int> failed{0};
  std::atomic<std::uint64_t> free_bytes{std::uint64_t{1} << 40};

  void arm(int operation, bool stays, Fault kind) {
    for_good = stays;
    fault = kind;
    failed = 0;
    countdown = operation;
  }
  void disarm() { countdown = 0; }

  IOStatus next() {
    const int before = countdown.load();
    if (before == 0) return IOStatus::OK();
    if (before > 1) {
      --countdown;
      return IOStatus::OK();
    }
    if (!for_good) countdown = 0;
    ++failed;
    return fault == Fault::no_space ? IOStatus::NoSpace("No space left on device (injected)")
                                    : IOStatus::IOError("Input/output error (injected)");
  }
};

class FaultyFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultyFile(std::unique_ptr<rocksdb::FSWritableFile>&& file, FaultPlan& plan)
      : FSWritableFileOwnerWrapper(std::move(file)), plan_(plan) {}
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, dbg) : fault;
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& info, IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, info, dbg) : fault;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSWritableFileOwnerWrapper::Sync(options, dbg) : fault;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSWritableFileOwnerWrapper::Fsync(options, dbg) : fault;
  }

 private:
  FaultPlan& plan_;
};

class FaultyDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  FaultyDirectory(std::unique_ptr<rocksdb::FSDirectory>&& directory, FaultPlan& plan)
      : FSDirectoryWrapper(std::move(directory)), plan_(plan) {}
  IOStatus Fsync(const IOOptions& options, IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSDirectoryWrapper::Fsync(options, dbg) : fault;
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* dbg,
                               const rocksdb::DirFsyncOptions& how) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? FSDirectoryWrapper::FsyncWithDirOptions(options, dbg, how) : fault;
  }

 private:
  FaultPlan& plan_;
};

class FaultyFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit FaultyFileSystem(FaultPlan& plan)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), plan_(plan) {}
  const char* Name() const override { return "FaultyFileSystem"; }

  IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           IODebugContext* dbg) override {
    if (IOStatus fault = plan_.next(); !fault.ok()) return fault;
    std::unique_ptr<rocksdb::FSWritableFile> inner;
    IOStatus status = target()->NewWritableFile(name, options, &inner, dbg);
    if (status.ok()) *file = std::make_unique<FaultyFile>(std::move(inner), plan_);
    return status;
  }
  IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file,
                              IODebugContext* dbg) override {
    if (IOStatus fault = plan_.next(); !fault.ok()) return fault;
    std::unique_ptr<rocksdb::FSWritableFile> inner;
    IOStatus status = target()->ReopenWritableFile(name, options, &inner, dbg);
    if (status.ok()) *file = std::make_unique<FaultyFile>(std::move(inner), plan_);
    return status;
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* directory,
                        IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSDirectory> inner;
    IOStatus status = target()->NewDirectory(name, options, &inner, dbg);
    if (status.ok()) *directory = std::make_unique<FaultyDirectory>(std::move(inner), plan_);
    return status;
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? target()->RenameFile(from, to, options, dbg) : fault;
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                    IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? target()->LinkFile(from, to, options, dbg) : fault;
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions& options,
                      IODebugContext* dbg) override {
    const IOStatus fault = plan_.next();
    return fault.ok() ? target()->DeleteFile(name, options, dbg) : fault;
  }
  IOStatus GetFreeSpace(const std::string&, const IOOptions&, std::uint64_t* free,
                        IODebugContext*) override {
    *free = plan_.free_bytes;
    return IOStatus::OK();
  }

 private:
  FaultPlan& plan_;
};

class FaultTest : public ::testing::Test {
 protected:
  FaultTest() : env_(rocksdb::NewCompositeEnv(std::make_shared<FaultyFileSystem>(plan_))) {}

  fs::path path() const { return folder_.path() / "store"; }

  Result<std::unique_ptr<PageStore>> open(bool with_faults, OpenMode mode = OpenMode::existing) {
    StoreSeam seam;
    if (with_faults) seam.env = env_.get();
    return open_rocksdb_store_with(path(), {.mode = mode, .full_table_every = 4}, seam);
  }

  static void make_change(Change& change, std::uint64_t seed) {
    for (std::uint32_t row = 0; row < 6; ++row) {
      change.page(weights(row * 3 + static_cast<std::uint32_t>(seed) % 2, 0), seed * 10 + row);
    }
    change.dense("d", bytes_of(seed, 300'000)).remove(weights(100, 0));
  }

  // A fresh store with two commits, and the model of it.
  void fresh_store(Model& model) {
    fs::remove_all(path());
    auto store = open(false, OpenMode::create);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      Change change(model);
      make_change(change, seed);
      ASSERT_TRUE((*store)->commit(change.get()).ok());
    }
  }

  // Fails operation after operation of one commit until one commit meets no fault any more.
  void fail_every_operation(bool for_good, Fault fault) {
    Model first;
    fresh_store(first);
    const fs::path kept = folder_.path() / "kept";
    fs::copy(path(), kept, fs::copy_options::recursive);
    int operation = 1;
    int failures = 0;
    int kept_though_failing = 0;
    int unknowns = 0;
    for (;; ++operation) {
      ASSERT_LT(operation, 200);
      fs::remove_all(path());
      fs::copy(kept, path(), fs::copy_options::recursive);
      SCOPED_TRACE(::testing::Message() << "operation " << operation << " for_good " << for_good
                                        << " no_space " << (fault == Fault::no_space));
      auto store = open(true);
      ASSERT_TRUE(store.ok()) << store.status().to_string();
      Model after = first;
      Change change(after);
      make_change(change, 3);
      plan_.arm(operation, for_good, fault);
      auto info = (*store)->commit(change.get());
      const bool hit = plan_.failed > 0;
      plan_.disarm();
      if (!info.ok()) {
        ++failures;
        EXPECT_TRUE(hit) << info.status().to_string();
        EXPECT_EQ(info.status().code(),
                  fault == Fault::no_space ? StatusCode::no_space : StatusCode::io_error)
            << info.status().to_string();
      } else if (hit) {
        ++kept_though_failing;
      }
      // Now the disk works again. Unless the store had to stay closed, the state is what was said.
      const bool unknown =
          !info.ok() && info.status().message().find("may or may not") != std::string::npos;
      EXPECT_TRUE(!unknown || for_good) << info.status().to_string();
      if (unknown) {
        ++unknowns;  // closed: reads say why, until the next commit opens it again
        EXPECT_THAT(difference(**store, first), ::testing::HasSubstr("could not be opened again"));
      } else {
        EXPECT_EQ(difference(**store, info.ok() ? after : first), "");
      }
      // The next commit works, whatever went before.
      Model last = after;
      Change next(last);
      make_change(next, 3);  // the same pages again, so that before and after end alike
      next.page(weights(50, 0), 4);
      const auto again = (*store)->commit(next.get());
      ASSERT_TRUE(again.ok()) << again.status().to_string();
      EXPECT_EQ(difference(**store, last), "");
      if (!unknown) {
        EXPECT_EQ(again->commit, info.ok() ? 4u : 3u);
      }
      store->reset();
      auto reopened = open(false);
      ASSERT_TRUE(reopened.ok()) << reopened.status().to_string();
      EXPECT_EQ(difference(**reopened, last), "");
      EXPECT_EQ((*reopened)->head()->commit, again->commit);
      EXPECT_TRUE((*reopened)->verify()->damage.empty());
      if (!hit) break;
    }
    EXPECT_GT(failures, 5);
    EXPECT_EQ(unknowns > 0, for_good);
    std::printf("%d operations, %d commits failed (%d unknown), %d kept\n", operation - 1, failures,
                unknowns, kept_though_failing);
    fs::remove_all(kept);
  }

  TempFolder folder_;
  FaultPlan plan_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(FaultTest, FullDiskOnce) { fail_every_operation(false, Fault::no_space); }
TEST_F(FaultTest, FullDiskForGood) { fail_every_operation(true, Fault::no_space); }
TEST_F(FaultTest, BrokenDiskOnce) { fail_every_operation(false, Fault::io_error); }
TEST_F(FaultTest, BrokenDiskForGood) { fail_every_operation(true, Fault::io_error); }

TEST_F(FaultTest, FailuresWhileOpening) {
  Model model;
  fresh_store(model);
  int failures = 0;
  for (int operation = 1;; ++operation) {
    ASSERT_LT(operation, 100);
    SCOPED_TRACE(operation);
    plan_.arm(operation, true, Fault::io_error);
    auto store = open(true);
    const bool hit = plan_.failed > 0;
    if (!store.ok()) ++failures;
    plan_.disarm();
    if (store.ok()) {
      EXPECT_EQ(difference(**store, model), "");
    }
    store = Status(StatusCode::io_error, "closed");
    auto reopened = open(false);
    ASSERT_TRUE(reopened.ok()) << reopened.status().to_string();
    EXPECT_EQ(difference(**reopened, model), "");
    if (!hit) break;
  }
  EXPECT_GT(failures, 2);
}

TEST_F(FaultTest, FailuresWhileCreatingLeaveAStoreOrNone) {
  int failures = 0;
  for (int operation = 1;; ++operation) {
    ASSERT_LT(operation, 100);
    SCOPED_TRACE(operation);
    plan_.arm(operation, true, Fault::no_space);
    auto store = open(true, OpenMode::create);
    const bool hit = plan_.failed > 0;
    plan_.disarm();
    if (store.ok()) {
      store = Status(StatusCode::io_error, "closed");
      fs::remove_all(path());
    } else {
      ++failures;
      EXPECT_EQ(store.status().code(), StatusCode::no_space) << store.status().to_string();
      // What is there, if anything, is a store, or one in the making that could not be removed.
      if (fs::exists(path())) {
        const auto found = open(false);
        EXPECT_EQ(found.ok(), contents_of(path()).contains("FORMAT"));
        EXPECT_TRUE(found.ok() || found.status().code() == StatusCode::not_found);
        EXPECT_TRUE(found.ok() || open(false, OpenMode::create).ok());
      }
      fs::remove_all(path());
    }
    if (!hit) break;
  }
  EXPECT_GT(failures, 2);
}

TEST_F(FaultTest, SpaceIsCheckedBeforeBuilding) {
  Model model;
  fresh_store(model);
  auto store = open(true);
  ASSERT_TRUE(store.ok());
  plan_.free_bytes = 1000;
  Model after = model;
  Change change(after);
  make_change(change, 3);
  int asked = 0;
  CommitRequest request = change.get();
  for (PageWrite& page : request.pages) {
    page.payload = [&asked, inner = page.payload] {
      ++asked;
      return inner();
    };
  }
  const auto full = (*store)->commit(request);
  EXPECT_EQ(full.status().code(), StatusCode::no_space);
  EXPECT_THAT(full.status().message(), ::testing::HasSubstr("the file system has 1000"));
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(difference(**store, model), "");
  EXPECT_EQ((*store)->restore({.commit = 1}).status().code(), StatusCode::no_space);
  EXPECT_EQ(difference(**store, model), "");
  plan_.free_bytes = std::uint64_t{1} << 40;
  ASSERT_TRUE((*store)->commit(request).ok());
  EXPECT_EQ(difference(**store, after), "");
}

}  // namespace
}  // namespace perennial::storage::testing
