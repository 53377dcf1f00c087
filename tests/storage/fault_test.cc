// SPDX-License-Identifier: Apache-2.0
// Failing writes: at every operation of everything that writes in turn (the first write of each
// file among them), once or for good, as a full disk or a broken one. The state is untouched or
// whole, what was answered is the truth, and the next commit works.
#include <atomic>
#include <memory>
#include <set>

#include "hooked_file_system.h"
#include "rocksdb_store_internal.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using rocksdb::IOStatus;
using ::testing::HasSubstr;

enum class Fault { no_space, io_error };

// Counts the operations that change the disk, and fails the chosen ones.
class FaultPlan {
 public:
  // From the `operation`-th on; 0: none.
  void arm(int operation, bool for_good, Fault fault) {
    countdown_ = operation;
    for_good_ = for_good;
    fault_ = fault;
    failed_ = 0;
  }
  void disarm() { countdown_ = 0; }
  bool hit() const { return failed_ > 0; }

  IOStatus next() {
    if (countdown_ == 0) return IOStatus::OK();
    if (countdown_ > 1) {
      --countdown_;
      return IOStatus::OK();
    }
    if (!for_good_) countdown_ = 0;
    ++failed_;
    return fault_ == Fault::no_space ? IOStatus::NoSpace("No space left on device (injected)")
                                     : IOStatus::IOError("Input/output error (injected)");
  }

 private:
  std::atomic<int> countdown_{0};
  std::atomic<bool> for_good_{false};
  std::atomic<Fault> fault_{Fault::io_error};
  std::atomic<int> failed_{0};
};

// "append MANIFEST", "sync sst": an operation and the kind of file it is done to.
std::string kind_of(const std::string& what, const fs::path& path) {
  const std::string name = path.filename();
  const std::string extension = path.extension();
  return what + " " + (extension.empty() ? name.substr(0, name.find('-')) : extension.substr(1));
}

class FaultTest : public ::testing::Test {
 protected:
  FaultTest() : env_(rocksdb::NewCompositeEnv(std::make_shared<HookedFileSystem>(hooks_))) {
    hooks_.set([this](const std::string& what, const std::string& path) {
      const IOStatus fault = plan_.next();
      if (!fault.ok()) met_.insert(kind_of(what, path));
      return fault;
    });
  }

  fs::path path() const { return folder_.path() / "store"; }

  Result<std::unique_ptr<PageStore>> open(OpenMode mode = OpenMode::existing) {
    const StoreSeam seam{.env = env_.get(), .on_phase = {}};
    return open_rocksdb_store_with(
        path(), {.mode = mode, .full_table_every = 4, .reclaim_in_background = false}, seam);
  }

  static void make_change(Change& change, std::uint64_t seed) {
    for (std::uint32_t row = 0; row < 6; ++row) {
      change.page(weights(row * 3 + static_cast<std::uint32_t>(seed) % 2, 0), seed * 10 + row);
    }
    change.dense("d", bytes_of(seed, 300'000)).remove(weights(100, 0));
  }

  // A fresh store with three commits, and the model of each.
  void fresh_store(std::vector<Model>& models) {
    fs::remove_all(path());
    auto store = open(OpenMode::create);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    models.assign(1, Model());
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      models.push_back(models.back());
      Change change(models.back());
      make_change(change, seed);
      ASSERT_TRUE((*store)->commit(change.get()).ok());
    }
  }

  // Something to do with that store: what it answers, and in `model` the state if that is ok.
  struct Step {
    std::string name;
    std::function<Status(PageStore&, const std::vector<Model>&, Model& model)> run;
    std::uint64_t commits = 1;  // that it adds
  };
  static std::vector<Step> steps() {
    return {
        {"commit",
         [](PageStore& store, const std::vector<Model>&, Model& model) {
           Change change(model);
           make_change(change, 4);
           return store.commit(change.snapshot("s").get()).status();
         }},
        {"commit of more than RocksDB's buffers",
         [](PageStore& store, const std::vector<Model>&, Model& model) {
           Change change(model);
           return store.commit(change.dense("large", bytes_of(1, 6'000'000)).get()).status();
         }},
        {"restore",
         [](PageStore& store, const std::vector<Model>& models, Model& model) {
           model = models[1];
           return store.restore({.commit = 1, .drop_later = true}).status();
         }},
        {"drop and reclaim",
         [](PageStore& store, const std::vector<Model>&, Model&) {
           const Status dropped = store.drop({1, 2}, "").status();
           if (!dropped.ok()) return dropped;
           // By now the step counts as done.
           (void)store.reclaim({.target_space = 1, .fold_files = 2});
           return dropped;
         }},
        {"reclaim",
         [](PageStore& store, const std::vector<Model>&, Model&) {
           return store.reclaim({.target_space = 1, .fold_files = 2}).status();
         },
         0},
    };
  }

  // Fails operation after operation of a step until one meets no fault any more.
  void fail_every_operation(const Step& step, bool for_good, Fault fault) {
    std::vector<Model> models;
    fresh_store(models);
    const fs::path kept = folder_.path() / "kept";
    fs::copy(path(), kept, fs::copy_options::recursive);
    int failures = 0;
    bool hit = true;
    for (int operation = 1; hit; ++operation) {
      ASSERT_LT(operation, 200);
      fs::remove_all(path());
      fs::copy(kept, path(), fs::copy_options::recursive);
      SCOPED_TRACE(::testing::Message() << step.name << ", operation " << operation << " for_good "
                                        << for_good << " no_space " << (fault == Fault::no_space));
      auto store = open();
      ASSERT_TRUE(store.ok()) << store.status().to_string();
      Model after = models.back();
      plan_.arm(operation, for_good, fault);
      const Status status = step.run(**store, models, after);
      hit = plan_.hit();
      plan_.disarm();
      if (!status.ok()) {
        ++failures;
        EXPECT_TRUE(hit) << status.to_string();
        EXPECT_EQ(status.code(),
                  fault == Fault::no_space ? StatusCode::no_space : StatusCode::io_error)
            << status.to_string();
      }
      // Now the disk works again. Unless the store had to stay closed, the state is what was said.
      const bool unknown = status.message().find("may or may not") != std::string::npos;
      EXPECT_TRUE(!unknown || for_good) << status.to_string();
      if (unknown) {  // closed: reads say why, until the next commit opens it again
        EXPECT_THAT(difference(**store, models.back()), HasSubstr("could not be opened again"));
      } else {
        EXPECT_EQ(difference(**store, status.ok() ? after : models.back()), "");
      }
      // The next commit works, whatever went before; its number says what did.
      Model scratch;
      Change next(scratch);
      make_change(next, 5);
      const auto again = (*store)->commit(next.get());
      ASSERT_TRUE(again.ok()) << again.status().to_string();
      const bool done = again->commit == models.size() + step.commits;
      EXPECT_TRUE(done || again->commit == models.size());
      if (!unknown && step.commits > 0) {
        EXPECT_EQ(done, status.ok());
      }
      Model last = done ? after : models.back();
      Change same(last);
      make_change(same, 5);
      EXPECT_EQ(difference(**store, last), "");
      store->reset();
      auto reopened = open();
      ASSERT_TRUE(reopened.ok()) << reopened.status().to_string();
      EXPECT_EQ(difference(**reopened, last), "");
      EXPECT_EQ((*reopened)->head()->commit, again->commit);
      EXPECT_TRUE((*reopened)->verify()->damage.empty());
    }
    EXPECT_GT(failures, 2) << step.name;
    fs::remove_all(kept);
  }

  // Opens with operation after operation failing, in each way, until one meets no fault any more;
  // `then` gets what came of it, on a disk that works again, and makes ready for the next.
  using Opened = Result<std::unique_ptr<PageStore>>;
  void fail_every_opening(OpenMode mode, const std::function<void(Opened&, bool for_good)>& then) {
    for (const Fault fault : {Fault::no_space, Fault::io_error}) {
      for (const bool for_good : {false, true}) {
        int failures = 0;
        bool hit = true;
        for (int operation = 1; hit; ++operation) {
          ASSERT_LT(operation, 100);
          SCOPED_TRACE(::testing::Message() << "operation " << operation << " for_good " << for_good
                                            << " no_space " << (fault == Fault::no_space));
          plan_.arm(operation, for_good, fault);
          Opened store = open(mode);
          hit = plan_.hit();
          plan_.disarm();
          if (!store.ok()) {
            ++failures;
            EXPECT_TRUE(hit);
            EXPECT_EQ(store.status().code(),
                      fault == Fault::no_space ? StatusCode::no_space : StatusCode::io_error)
                << store.status().to_string();
          }
          ASSERT_NO_FATAL_FAILURE(then(store, for_good));
        }
        EXPECT_GT(failures, 2);
      }
    }
  }

  void fail_every_operation(bool for_good, Fault fault) {
    for (const Step& step : steps()) fail_every_operation(step, for_good, fault);
    // Else an operation was not failed, the first write of a file above all.
    for (const char* kind :
         {"append building", "sync building", "close building", "create building", "rename sst",
          "link ingest", "append MANIFEST", "sync MANIFEST", "append sst", "sync sst", "close sst",
          "create sst", "sync_folder db"}) {
      EXPECT_TRUE(met_.contains(kind)) << kind;
    }
  }

  TempFolder folder_;
  FaultPlan plan_;
  std::set<std::string> met_;  // what failed
  DiskHooks hooks_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(FaultTest, FullDiskOnce) { fail_every_operation(false, Fault::no_space); }
TEST_F(FaultTest, FullDiskForGood) { fail_every_operation(true, Fault::no_space); }
TEST_F(FaultTest, BrokenDiskOnce) { fail_every_operation(false, Fault::io_error); }
TEST_F(FaultTest, BrokenDiskForGood) { fail_every_operation(true, Fault::io_error); }

TEST_F(FaultTest, FailuresWhileOpening) {
  std::vector<Model> models;
  fresh_store(models);
  fail_every_opening(OpenMode::existing, [&](Opened& store, bool) {
    if (store.ok()) {
      EXPECT_EQ(difference(**store, models.back()), "");
    }
    store = Status(StatusCode::io_error, "closed");
    auto reopened = open();
    ASSERT_TRUE(reopened.ok()) << reopened.status().to_string();
    EXPECT_EQ(difference(**reopened, models.back()), "");
  });
  for (const char* kind : {"append MANIFEST", "sync MANIFEST", "append dbtmp", "sync dbtmp",
                           "close dbtmp", "rename CURRENT", "create log"}) {
    EXPECT_TRUE(met_.contains(kind)) << kind;
  }
}

TEST_F(FaultTest, ACreationThatFailedLeavesNothingOrIsTakenUpAgain) {
  fail_every_opening(OpenMode::create, [&](Opened& store, bool for_good) {
    if (!store.ok()) {
      // A disk that works again after one failure was cleaned up.
      EXPECT_TRUE(for_good || !fs::exists(path()) || fs::is_empty(path()))
          << ::testing::PrintToString(contents_of(path()));
      if (fs::exists(path())) {
        const auto found = open();
        EXPECT_TRUE(found.ok() || found.status().code() == StatusCode::not_found)
            << found.status().to_string();
      }
      store = open(OpenMode::either);
      ASSERT_TRUE(store.ok()) << store.status().to_string();
      EXPECT_EQ((*store)->head().status().code(), StatusCode::not_found);
    }
    store = Status(StatusCode::io_error, "closed");
    fs::remove_all(path());
  });
  for (const char* kind : {"make_folder db", "append new", "sync new", "close new", "rename FORMAT",
                           "sync_folder store", "append MANIFEST", "append dbtmp"}) {
    EXPECT_TRUE(met_.contains(kind)) << kind;
  }
}

// A disk on which `free` bytes are left.
class FullDiskTest : public FaultTest {
 protected:
  // A store of many commits of which each replaces most of the one before, and one page stays.
  void SetUp() override {
    auto store = open(OpenMode::create);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
      Change change(model_);
      change.request.retention = Retention::all();
      change.page(weights(static_cast<std::uint32_t>(seed), 0), seed);
      for (std::uint64_t entry = 0; entry < 20; ++entry) {
        change.dense("entry " + std::to_string(entry), bytes_of(seed * 100 + entry, 300));
      }
      change.dense("large", bytes_of(seed + 100, 600'000));
      ASSERT_TRUE((*store)->commit(change.get()).ok());
    }
  }
  static constexpr std::uint64_t kPromised = std::uint64_t{64} << 10;
  Model model_;
};

TEST_F(FullDiskTest, DroppingAndReclaimingNeed64KiB) {
  for (const std::uint64_t free : {kPromised, 2 * kPromised, 32 * kPromised}) {
    SCOPED_TRACE(free);
    hooks_.free_bytes = free;
    auto store = open();
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    // What fills the disk further is refused before it begins.
    Model scratch = model_;
    Change change(scratch);
    EXPECT_EQ((*store)->commit(change.dense("d", bytes_of(1, 10)).get()).status().code(),
              StatusCode::no_space);
    std::vector<std::uint64_t> commits;
    for (const CommitInfo& info : (*store)->log()) commits.push_back(info.commit);
    std::ranges::sort(commits);
    commits.resize(10);
    const auto dropped = (*store)->drop(commits, "");
    ASSERT_TRUE(dropped.ok()) << dropped.status().to_string();
    const auto report = (*store)->reclaim({.target_space = 1.2, .fold_files = 0});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_GT(report->files_removed + report->files_rewritten, 8u);
    EXPECT_GT(hooks_.free_bytes, free + 9 * 600'000);
    EXPECT_EQ(difference(**store, model_), "");
    EXPECT_TRUE((*store)->verify()->damage.empty());
  }
}

// As gc --keep-last 1 does it.
TEST_F(FullDiskTest, ARuleThatDropsNeeds64KiB) {
  hooks_.free_bytes = kPromised;
  auto store = open();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  CommitRequest rule;
  rule.retention = Retention{.keep_last = 1};
  const auto kept = (*store)->commit(rule);
  ASSERT_TRUE(kept.ok()) << kept.status().to_string();
  const auto report = (*store)->reclaim({.target_space = 1.2});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_LE(report->files_left, 1u);  // what is live of commit 40 fits nowhere
  EXPECT_GT(hooks_.free_bytes, 38u * 600'000);
  EXPECT_EQ(difference(**store, model_), "");
  store->reset();
  store = open();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_EQ(difference(**store, model_), "");
  EXPECT_TRUE((*store)->verify()->damage.empty());
}

// Folding needs as much room as all that stays; what fits goes first, and gives more room.
TEST_F(FullDiskTest, WhatDoesNotFitIsLeft) {
  hooks_.free_bytes = 3 * kPromised;
  auto store = open();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  const std::size_t files = (*store)->log().size();
  const auto full = (*store)->reclaim({.fold_files = 2});
  EXPECT_EQ(full.status().code(), StatusCode::no_space) << full.status().to_string();
  EXPECT_THAT(full.status().message(), HasSubstr("the file system has"));
  ASSERT_TRUE((*store)->drop({1, 2, 3}, "").ok());
  const auto report = (*store)->reclaim({.fold_files = 30});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_GT(report->files_left, 30u);
  EXPECT_EQ((*store)->log().size(), files - 2);
  EXPECT_EQ(difference(**store, model_), "");
}

// The full table that is due is left for later where it does not fit; a restore cannot do without.
TEST_F(FullDiskTest, DropsDoWithoutAFullTable) {
  auto store = open();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  Change change(model_);
  for (std::uint32_t row = 0; row < 3000; ++row) change.page(weights(row, 1), row, shape_of(1, 1));
  ASSERT_TRUE((*store)->commit(change.get()).ok());
  hooks_.free_bytes = 2 * kPromised;
  for (std::uint64_t commit = 1; commit <= 6; ++commit) {
    const auto dropped = (*store)->drop({commit}, "");
    ASSERT_TRUE(dropped.ok()) << dropped.status().to_string();
  }
  EXPECT_EQ((*store)->restore({.commit = 41}).status().code(), StatusCode::no_space);
  EXPECT_EQ(difference(**store, model_), "");
  store->reset();
  store = open();
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_EQ(difference(**store, model_), "");
}

TEST_F(FaultTest, SpaceIsCheckedBeforeBuilding) {
  std::vector<Model> models;
  fresh_store(models);
  const Model& model = models.back();
  auto store = open();
  ASSERT_TRUE(store.ok());
  hooks_.free_bytes = 1000;
  Model after = model;
  Change change(after);
  make_change(change, 4);
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
  EXPECT_THAT(full.status().message(), HasSubstr("the file system has 1000"));
  EXPECT_EQ(asked, 0);
  EXPECT_EQ(difference(**store, model), "");
  EXPECT_EQ((*store)->restore({.commit = 1}).status().code(), StatusCode::no_space);
  EXPECT_EQ(difference(**store, model), "");
  hooks_.free_bytes = std::uint64_t{1} << 40;
  ASSERT_TRUE((*store)->commit(request).ok());
  EXPECT_EQ(difference(**store, after), "");
}

}  // namespace
}  // namespace perennial::storage::testing
