// SPDX-License-Identifier: Apache-2.0
// Views: reading beside a writer, leases, read-only folders, damage.
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "backend_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kTestFolder[] = "PERENNIAL_TEST_FOLDER";

class RocksdbViewTest : public ::testing::Test {
 protected:
  std::unique_ptr<RocksdbBackend> open_with(int commits, StoreSeam seam = {}) {
    auto backend = store_.open(std::move(seam));
    EXPECT_TRUE(backend.ok()) << backend.status().to_string();
    for (int i = 0; i < commits; ++i) EXPECT_EQ(add_commit(**backend).to_string(), "ok");
    return std::move(*backend);
  }
  std::unique_ptr<Backend> view() const {
    auto view = open_view(store_.folder, {}, {});
    EXPECT_TRUE(view.ok()) << view.status().to_string();
    return view.ok() ? std::move(*view) : nullptr;
  }
  std::size_t folders() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(store_.folder.views())) {
      (void)entry;
      ++count;
    }
    return count;
  }
  // "" if a view holds what the writer of BesideAWriter may have left at some moment.
  static std::string check(const Backend& view) {
    const std::uint64_t last = view.last_commit();
    for (const BackendFile& file : view.files()) {
      for (std::uint64_t commit = file.first_commit; commit <= file.last_commit; ++commit) {
        for (std::uint32_t row = 0; row < kRows; ++row) {
          const std::string found = look_up(view, commit, row);
          const bool may_go = row % 2 == 1 && commit < last;
          if (!found.empty() && !(may_go && found == "gone")) {
            return "commit " + std::to_string(commit) + " row " + std::to_string(row) + ": " +
                   found;
          }
        }
      }
    }
    return "";
  }

  // Changes everything but the newest commit, of which `reader` was opened just before.
  void expect_unmoved(RocksdbBackend& backend, const Backend& reader) {
    const std::string listed = ranges(reader);
    EXPECT_EQ(listed, ranges(backend));
    const std::uint64_t last = reader.last_commit();
    ASSERT_EQ(rewrite(backend, last - 1, last - 1, keep_all).to_string(), "ok");
    ASSERT_EQ(backend.remove(files_between(backend, last - 2, last - 2)).to_string(), "ok");
    ASSERT_EQ(add_commit(backend).to_string(), "ok");
    ASSERT_EQ(add_commit(backend).to_string(), "ok");
    EXPECT_EQ(ranges(reader), listed);
    for (std::uint64_t commit = last - 2; commit <= last; ++commit) {
      for (std::uint32_t row = 0; row < kRows; ++row) {
        EXPECT_EQ(look_up(reader, commit, row), "") << commit;
      }
    }
    std::vector<Damage> damage;
    reader.verify_files(damage, {});
    EXPECT_TRUE(damage.empty()) << damage.front().what;
  }

  TempFolder temp_;
  BackendFolder store_{temp_.path() / "store"};
};

TEST_F(RocksdbViewTest, StaysWhatItIs) {
  auto backend = open_with(4);
  auto early = view();
  EXPECT_EQ(ranges(*early), "1 2 3 4");
  EXPECT_EQ(early->file_of(2).path, backend->file_of(2).path);
  std::uint64_t written = 0;
  ASSERT_TRUE(backend->rewrite(files_between(*backend, 2, 3), keep_even, 0, 0, written).ok());
  ASSERT_TRUE(backend->remove(files_between(*backend, 1, 1)).ok());
  ASSERT_TRUE(add_commit(*backend).ok());
  auto late = view();
  EXPECT_EQ(ranges(*late), "2-3 4 5");
  backend.reset();
  backend = open_with(0);
  EXPECT_EQ(folders(), 2u);
  for (std::uint64_t commit = 1; commit <= 4; ++commit) {
    for (std::uint32_t row = 0; row < kRows; ++row) EXPECT_EQ(look_up(*early, commit, row), "");
  }
  EXPECT_EQ(look_up(*late, 1, 0), "gone");
  EXPECT_EQ(look_up(*late, 2, 1), "gone");
  EXPECT_EQ(look_up(*late, 2, 2), "");
  std::vector<Damage> damage;
  early->verify_files(damage, {});
  late->verify_files(damage, {});
  EXPECT_TRUE(damage.empty());
  // What only views hold counts, and what they share counts once.
  const std::uint64_t with = *backend->size_bytes();
  early.reset();
  EXPECT_LT(*backend->size_bytes(), with - 2 * kRows * 5000);
  late.reset();
  EXPECT_EQ(folders(), 0u);
}

TEST_F(RocksdbViewTest, WritesNothing) {
  auto backend = open_with(2);
  auto reader = view();
  std::uint64_t written = 0;
  for (const Status& status : {reader->begin(3, 0), reader->put("k", {}, {}), reader->publish(),
                               reader->remove({}), reader->rewrite({}, keep_all, 0, 0, written)}) {
    EXPECT_EQ(status.code(), StatusCode::invalid_argument);
    EXPECT_EQ(status.message(), "a view is read-only");
  }
}

TEST_F(RocksdbViewTest, LeasesNameTheReadersThatLive) {
  auto backend = open_with(3);
  EXPECT_TRUE(backend->leases().empty());
  int ready[2];
  int go[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(go), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto reader = open_view(store_.folder, {}, {});
    if (!reader.ok()) ::_exit(1);
    (*reader)->pin(2);
    if (::fork() == 0) {  // it does not keep the lease, as soon as it runs
      const pid_t grandchild = ::getpid();
      (void)!::write(ready[1], &grandchild, sizeof(grandchild));
      ::_exit(::pause());
    }
    char byte = 0;
    (void)!::read(go[0], &byte, 1);
    ::_exit(0);  // without destroying the view
  }
  pid_t grandchild = 0;
  ASSERT_EQ(::read(ready[0], &grandchild, sizeof(grandchild)),
            static_cast<ssize_t>(sizeof(grandchild)));
  auto own = view();
  auto leases = backend->leases();
  ASSERT_EQ(leases.size(), 2u);
  std::ranges::sort(leases, {}, &Backend::Lease::commit);
  EXPECT_EQ(leases[0].commit, 0u);
  EXPECT_THAT(leases[0].reader, HasSubstr("view pid " + std::to_string(::getpid()) + " ("));
  EXPECT_EQ(leases[1].commit, 2u);
  EXPECT_THAT(leases[1].reader, HasSubstr("view pid " + std::to_string(child) + " ("));
  EXPECT_EQ(folders(), 2u);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(folders(), 2u);
  EXPECT_EQ(backend->leases().size(), 1u);
  EXPECT_EQ(folders(), 1u) << "a dead reader's folder is still there";
  ::kill(grandchild, SIGKILL);
  own.reset();
  EXPECT_TRUE(backend->leases().empty());
  // Opening sweeps too.
  backend.reset();
  fs::create_directory(store_.folder.views() / "dead");
  write_text(store_.folder.views() / "dead" / "LEASE", "view pid 1 (init)\n1\n");
  backend = open_with(0);
  EXPECT_EQ(folders(), 0u);
}

TEST_F(RocksdbViewTest, BesideAWriterThatNeverRests) {
  open_with(4);
  // A process of its own: this program, running the next test in the same folder.
  ASSERT_EQ(::setenv(kTestFolder, temp_.path().c_str(), 1), 0);
  std::string program = "/proc/self/exe";
  std::string filter = "--gtest_filter=*DISABLED_ReaderProcess";
  std::string also = "--gtest_also_run_disabled_tests";
  char* arguments[] = {program.data(), filter.data(), also.data(), nullptr};
  pid_t reader = 0;
  ASSERT_EQ(::posix_spawn(&reader, program.c_str(), nullptr, nullptr, arguments, environ), 0);
  auto backend = open_with(0);
  std::atomic<bool> done{false};
  std::thread own_views([&] {
    while (!done) {
      auto reader = open_view(store_.folder, {}, {});
      ASSERT_TRUE(reader.ok()) << reader.status().to_string();
      EXPECT_EQ(check(**reader), "");
    }
  });
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 3; ++i) ASSERT_EQ(add_commit(*backend).to_string(), "ok");
    const std::uint64_t last = backend->last_commit();
    ASSERT_EQ(rewrite(*backend, last - 3, last - 1, keep_even).to_string(), "ok");
    ASSERT_EQ(rewrite(*backend, last - 6, last - 1, keep_even).to_string(), "ok");
    (void)backend->leases();
    if (round % 4 == 3) {
      const auto files = backend->files();
      ASSERT_EQ(backend->remove({files[0]}).to_string(), "ok");
    }
    if (round % 10 == 9) {
      backend.reset();
      backend = open_with(0);
    }
  }
  done = true;
  own_views.join();
  while (read_text(temp_.path() / "opened").size() < 2 &&
         ::waitpid(reader, nullptr, WNOHANG) == 0) {
    std::this_thread::yield();  // until it has opened ten
  }
  write_text(temp_.path() / "enough", "");
  int status = 0;
  ASSERT_EQ(::waitpid(reader, &status, 0), reader);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(backend->leases().empty());
  EXPECT_EQ(folders(), 0u);
}

// Opens one view after another until the writer has had enough.
TEST_F(RocksdbViewTest, DISABLED_ReaderProcess) {
  const char* folder = std::getenv(kTestFolder);
  ASSERT_NE(folder, nullptr);
  const BackendFolder store(fs::path(folder) / "store");
  int opened = 0;
  std::uint64_t newest = 0;
  while (!fs::exists(fs::path(folder) / "enough")) {
    auto reader = open_view(store.folder, {}, {});
    ASSERT_TRUE(reader.ok()) << reader.status().to_string();
    ASSERT_EQ(check(**reader), "") << ranges(**reader);
    ASSERT_GE((*reader)->last_commit(), newest);
    newest = (*reader)->last_commit();
    ++opened;
    write_text(fs::path(folder) / "opened", std::to_string(opened));
  }
}

TEST_F(RocksdbViewTest, ReadsAFolderThatItMayNotWriteTo) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs to become another user";
  auto backend = open_with(3);
  backend.reset();
  ASSERT_EQ(::chmod(temp_.path().c_str(), 0755), 0);
  for (const auto& entry : fs::recursive_directory_iterator(store_.folder.root)) {
    ASSERT_EQ(::chmod(entry.path().c_str(), entry.is_directory() ? 0555 : 0444), 0);
  }
  ASSERT_EQ(::chmod(store_.folder.root.c_str(), 0555), 0);
  const auto before = contents_of(store_.folder.root);
  ASSERT_EQ(::seteuid(65534), 0);
  auto reader = open_view(store_.folder, {}, {});
  const std::string first = reader.ok() ? look_up(**reader, 2, 3) : reader.status().to_string();
  ASSERT_EQ(::seteuid(0), 0);
  EXPECT_EQ(first, "");
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(ranges(**reader), "1 2 3");
  reader = Status(StatusCode::io_error, "closed");
  EXPECT_EQ(contents_of(store_.folder.root), before);
  // Beside a writer, too.
  backend = open_with(0);
  ASSERT_EQ(::seteuid(65534), 0);
  reader = open_view(store_.folder, {}, {});
  ASSERT_EQ(::seteuid(0), 0);
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  expect_unmoved(*backend, **reader);
}

// Wherever the disk turns out to be full.
TEST_F(RocksdbViewTest, ReadsFromAFullDisk) {
  auto backend = open_with(3);
  DiskHooks hooks;
  const auto env = rocksdb::NewCompositeEnv(std::make_shared<HookedFileSystem>(hooks));
  for (const std::string full :
       {"create MANIFEST", "append MANIFEST", "create CURRENT", "append CURRENT", "link 0"}) {
    SCOPED_TRACE(full);
    bool hit = false;
    hooks.set([&](const std::string& what, const std::string& path) {
      const std::string step = what + " " + fs::path(path).filename().string();
      hit = hit || step.starts_with(full);
      return step.starts_with(full) ? rocksdb::IOStatus::NoSpace("No space left on device")
                                    : rocksdb::IOStatus::OK();
    });
    auto reader = open_view(store_.folder, {}, {.env = env.get(), .on_phase = {}});
    EXPECT_TRUE(hit);
    ASSERT_TRUE(reader.ok()) << reader.status().to_string();
    EXPECT_EQ(folders(), 0u);
    expect_unmoved(*backend, **reader);
  }
}

TEST_F(RocksdbViewTest, ReadsMoreFilesThanItKeepsOpen) {
  DiskHooks hooks;
  const auto env = rocksdb::NewCompositeEnv(std::make_shared<HookedFileSystem>(hooks));
  auto backend = open_with(203, {.env = env.get(), .on_phase = {}});
  hooks.set([](const std::string&, const std::string&) {
    return rocksdb::IOStatus::NoSpace("No space left on device");
  });
  const auto reader = open_view(store_.folder, {}, {.env = env.get(), .on_phase = {}});
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  for (std::uint64_t commit = 1; commit <= 203; ++commit) {
    EXPECT_EQ(look_up(**reader, commit, 0), "") << commit;
  }
  hooks.set({});
  ASSERT_EQ(backend->remove(files_between(*backend, 1, 202)).to_string(), "ok");
  EXPECT_EQ(look_up(**reader, 1, 0), "");
  EXPECT_EQ(look_up(**reader, 203, 0), "");
}

TEST_F(RocksdbViewTest, DamageNamesTheFileInDb) {
  auto backend = open_with(3);
  const std::string path = backend->file_of(2).path;
  const std::string whole = read_text(path);
  for (const std::size_t at : {whole.size() - 20, whole.size() - 200, std::size_t{100}}) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write_text(path, damaged);
    auto reader = open_view(store_.folder, {}, {});
    if (reader.ok()) {
      EXPECT_EQ(at, 100u);
      const std::string found = look_up(**reader, 2, 0);
      EXPECT_THAT(found, HasSubstr("corruption"));
      EXPECT_THAT(found, HasSubstr(path));
      std::vector<Damage> damage;
      (*reader)->verify_files(damage, {});
      ASSERT_EQ(damage.size(), 1u);
      EXPECT_EQ(damage[0].file, path);
    } else {
      EXPECT_EQ(reader.status().code(), StatusCode::corruption);
      EXPECT_THAT(reader.status().message(), HasSubstr(path));
    }
  }
  write_text(path, whole);
  fs::rename(path, path + ".hidden");
  const Status missing = open_view(store_.folder, {}, {}).status();
  EXPECT_EQ(missing.code(), StatusCode::corruption);
  EXPECT_THAT(missing.message(), HasSubstr(path + ", which is missing"));
  EXPECT_EQ(folders(), 0u);
}

TEST_F(RocksdbViewTest, NeedsAStore) {
  EXPECT_EQ(open_view(store_.folder, {}, {}).status().code(), StatusCode::not_found);
  fs::create_directory(store_.folder.root);
  EXPECT_EQ(open_view(store_.folder, {}, {}).status().code(), StatusCode::not_found);
  write_text(store_.folder.root / "thesis.txt", "mine");
  EXPECT_EQ(open_view(store_.folder, {}, {}).status().code(), StatusCode::invalid_argument);
  EXPECT_FALSE(fs::exists(store_.folder.views()));
}

}  // namespace
}  // namespace perennial::storage::testing
