// SPDX-License-Identifier: Apache-2.0
// Flipped bytes, cut files and missing files: always named or without effect; never wrong data and
// never a commit lost in silence.
#include <algorithm>
#include <memory>
#include <set>

#include "perennial/storage/rocksdb_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kCommits = 5;

// In memory where there is such a file system: each case opens a store, and fsync is not the point.
class ScratchFolder {
 public:
  ScratchFolder() {
    if (fs::is_directory("/dev/shm")) {
      std::string name = "/dev/shm/perennial.XXXXXX";
      if (::mkdtemp(name.data()) != nullptr) shared_ = name;
    }
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (!shared_.empty()) fs::remove_all(shared_, ignored);
  }
  fs::path path() const { return shared_.empty() ? fallback_.path() : shared_; }

 private:
  TempFolder fallback_;
  fs::path shared_;
};

class CorruptionTest : public ::testing::Test {
 protected:
  // Commits 1 .. 3 in one run of the program, 4 and 5 in another, so that the manifest holds both a
  // snapshot of files and single edits. Everything small, so that every region can be hit.
  void SetUp() override {
    for (std::uint64_t commit = 1; commit <= kCommits; ++commit) {
      if (commit == 1 || commit == 4) {
        store.reset();
        store = open(pristine(), commit == 1 ? OpenMode::create : OpenMode::existing);
      }
      Change change(model);
      for (std::uint32_t row = 0; row < 3; ++row) change.page(weights(row, 0), 10 * commit + row);
      change.page(weights(static_cast<std::uint32_t>(commit) + 10, 0), commit);
      change.dense("d", bytes_of(commit, 700)).dense("n" + std::to_string(commit), bytes_of(9, 80));
      change.snapshot("s" + std::to_string(commit));
      const auto info = store->commit(change.get());
      ASSERT_TRUE(info.ok()) << info.status().to_string();
    }
    digest = store->head()->state_digest;
    store.reset();
    fs::remove_all(victim());
    for (const auto& entry : fs::recursive_directory_iterator(pristine())) {
      if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), pristine()));
    }
    std::ranges::sort(files);
  }

  fs::path pristine() const { return folder.path() / "pristine"; }
  fs::path victim() const { return folder.path() / "victim"; }

  std::unique_ptr<PageStore> open(const fs::path& path, OpenMode mode) {
    auto result = open_rocksdb_store(path, {.mode = mode, .full_table_every = 2});
    EXPECT_TRUE(result.ok()) << result.status().to_string();
    return result.ok() ? std::move(*result) : nullptr;
  }

  // A copy in which every name is a file of its own: no damage is shared with stage/.
  void copy_store() {
    fs::remove_all(victim());
    fs::copy(pristine(), victim(), fs::copy_options::recursive);
  }

  // What a damaged store did.
  struct Outcome {
    bool opened = false;
    bool intact = false;         // every page, entry, commit and name is as it was
    bool verify_damage = false;  // verify found something and named the file
    std::string message;
  };

  // Opens the victim and checks the rule of this file. `file` is what was damaged.
  Outcome examine(const fs::path& file, bool must_name = true) {
    Outcome outcome;
    const auto before = contents_of(victim());
    auto result = open_rocksdb_store(victim(), {.full_table_every = 2});
    if (!result.ok()) {
      outcome.message = result.status().to_string();
      EXPECT_THAT(outcome.message, ::testing::HasSubstr(must_name ? name_of(file) : "MANIFEST"));
      EXPECT_EQ(contents_of(victim()), before) << "a failed open changed the store: " << file;
      return outcome;
    }
    outcome.opened = true;
    PageStore& damaged = **result;
    const auto head = damaged.head();
    EXPECT_TRUE(head.ok() && head->commit == kCommits) << "lost a commit after damage to " << file;
    EXPECT_TRUE(head.ok() && head->state_digest == digest) << file;
    outcome.message = difference(damaged, model);
    EXPECT_THAT(outcome.message, ::testing::Not(::testing::HasSubstr("other"))) << file;
    if (!outcome.message.empty()) {
      EXPECT_THAT(outcome.message, ::testing::HasSubstr(name_of(file)));
    }
    const auto log = damaged.log();
    EXPECT_EQ(log.size(), kCommits);
    outcome.intact = outcome.message.empty();
    for (const CommitInfo& info : log) {
      if (info.snapshot != "s" + std::to_string(info.commit)) outcome.intact = false;
    }
    const auto report = damaged.verify();
    EXPECT_TRUE(report.ok());
    for (const Damage& damage : report->damage) {
      if (damage.file.find(name_of(file)) != std::string::npos) outcome.verify_damage = true;
    }
    EXPECT_EQ(report->damage.empty(), !outcome.verify_damage) << file;
    return outcome;
  }

  static std::string name_of(const fs::path& file) { return file.filename().string(); }
  static bool is_commit_file(const fs::path& file) {
    return file.parent_path() == "db" && file.extension() == ".sst";
  }
  // Files whose every byte counts for opening.
  static bool is_root_file(const fs::path& file) {
    return name_of(file).starts_with("MANIFEST") || name_of(file) == "CURRENT" ||
           name_of(file) == "FORMAT";
  }

  // The rule for one damaged file.
  void expect_told_or_harmless(const fs::path& file, const Outcome& outcome,
                               const std::string& how) {
    if (is_commit_file(file)) {
      EXPECT_TRUE(!outcome.opened || outcome.verify_damage)
          << how << " of " << file << " went unseen";
    } else {
      EXPECT_TRUE(!outcome.opened || outcome.intact) << how << " of " << file;
      EXPECT_TRUE(outcome.opened || is_root_file(file)) << how << ": " << outcome.message;
    }
  }

  void flip(const fs::path& file, std::size_t at, unsigned mask) {
    std::string text = read_text(pristine() / file);
    text[at] = static_cast<char>(static_cast<unsigned char>(text[at]) ^ mask);
    copy_store();
    write_text(victim() / file, text);
    expect_told_or_harmless(file, examine(file),
                            "flip " + std::to_string(mask) + " at " + std::to_string(at));
  }

  ScratchFolder folder;
  std::unique_ptr<PageStore> store;
  Model model;
  Digest digest;
  std::vector<fs::path> files;
};

TEST_F(CorruptionTest, FlippedBytesInCommitFiles) {
  int flips = 0;
  for (const fs::path& file : files) {
    if (!is_commit_file(file)) continue;
    const std::size_t size = fs::file_size(pristine() / file);
    constexpr std::size_t kFooter = 64;  // metaindex and index handles, version, magic
    for (std::size_t at = 0; at < size; at += at + kFooter < size ? 23 : 3) {
      flip(file, at, 1u << (at % 8));
      ++flips;
    }
  }
  EXPECT_GT(flips, 500);
}

TEST_F(CorruptionTest, FlippedBytesInManifestCurrentAndFormat) {
  int flips = 0;
  for (const fs::path& file : files) {
    if (!is_root_file(file)) continue;
    const std::size_t size = fs::file_size(pristine() / file);
    for (std::size_t at = 0; at < size; ++at) {
      // 4 turns a record's type into one that RocksDB takes for the end of the log.
      for (const unsigned mask : {1u << (at % 8), 4u, 255u}) {
        flip(file, at, mask);
        ++flips;
      }
    }
  }
  EXPECT_GT(flips, 1000);
}

TEST_F(CorruptionTest, FlippedBytesElsewhereHaveNoEffect) {
  int flips = 0;
  for (const fs::path& file : files) {
    if (is_commit_file(file) || is_root_file(file)) continue;
    const std::size_t size = fs::file_size(pristine() / file);
    for (std::size_t at = 0; at < size; at += 1 + size / 25) {
      flip(file, at, 1u << (at % 8));
      ++flips;
    }
  }
  EXPECT_GT(flips, 50);
}

TEST_F(CorruptionTest, CutFiles) {
  for (const fs::path& file : files) {
    const std::string text = read_text(pristine() / file);
    const std::size_t step = name_of(file).starts_with("MANIFEST") ? 7 : 1 + text.size() / 10;
    for (std::size_t size = 0; size < text.size(); size += step) {
      copy_store();
      write_text(victim() / file, text.substr(0, size));
      expect_told_or_harmless(file, examine(file), "cut to " + std::to_string(size));
    }
  }
}

TEST_F(CorruptionTest, MissingFiles) {
  std::set<std::string> healed;
  for (const fs::path& file : files) {
    copy_store();
    fs::remove(victim() / file);
    const Outcome outcome = examine(file);
    if (outcome.opened) {
      EXPECT_TRUE(outcome.intact) << file << ": " << outcome.message;
      if (is_commit_file(file)) healed.insert(file);
    } else {
      EXPECT_TRUE(is_commit_file(file) || is_root_file(file)) << outcome.message;
    }
  }
  EXPECT_EQ(healed.size(), 1u) << "only the newest commit has a twin in stage/";
}

TEST_F(CorruptionTest, TwoMissingFilesAreNotPatched) {
  copy_store();
  int removed = 0;
  for (const fs::path& file : files) {
    if (is_commit_file(file) && removed < 5 && ++removed >= 4) fs::remove(victim() / file);
  }
  const auto before = contents_of(victim());
  const auto result = open_rocksdb_store(victim());
  EXPECT_EQ(result.status().code(), StatusCode::corruption);
  EXPECT_EQ(contents_of(victim()), before);
}

// Each commit file in the place of each other one. Whole in itself, so the error may name the
// manifest that expects another file.
TEST_F(CorruptionTest, SwappedFiles) {
  for (const fs::path& file : files) {
    for (const fs::path& other : files) {
      if (file == other || !is_commit_file(file) || !is_commit_file(other)) continue;
      copy_store();
      fs::copy_file(pristine() / other, victim() / file, fs::copy_options::overwrite_existing);
      expect_told_or_harmless(file, examine(file, false), "swap with " + other.string());
    }
  }
}

// The manifest loses its last edit: the commit comes back from its file. It loses more: an error.
// With and without the twin in stage/: either witness is enough.
TEST_F(CorruptionTest, ManifestThatLosesItsTail) {
  const auto manifest = std::ranges::find_if(
      files, [](const fs::path& file) { return name_of(file).starts_with("MANIFEST"); });
  ASSERT_NE(manifest, files.end());
  const std::string text = read_text(pristine() / *manifest);
  int recovered = 0;
  int refused = 0;
  for (std::size_t size = text.size(); size-- > 0;) {
    copy_store();
    if (size % 2 == 0) fs::remove_all(victim() / "stage");
    write_text(victim() / *manifest, text.substr(0, size));
    const Outcome outcome = examine(*manifest);
    (outcome.opened ? recovered : refused) += 1;
    EXPECT_TRUE(!outcome.opened || outcome.intact) << size;
  }
  EXPECT_GT(recovered, 50);
  EXPECT_GT(refused, 50);
}

// Pages larger than a block, so that each one is damaged alone.
TEST(Verify, GoesOnAfterDamageAndNamesFilePageAndCommit) {
  const TempFolder folder;
  const PageShape shape = shape_of(16, 128);
  Model model;
  {
    auto store = open_rocksdb_store(folder.path() / "s", {.mode = OpenMode::create});
    ASSERT_TRUE(store.ok());
    for (std::uint32_t commit = 1; commit <= 3; ++commit) {
      Change change(model);
      for (std::uint32_t row = 0; row < 8; ++row) {
        change.page(weights(row, commit), 100 * commit + row, shape);
      }
      change.dense("d" + std::to_string(commit), bytes_of(commit, 9000));
      ASSERT_TRUE((*store)->commit(change.get()).ok());
    }
  }
  // Two pages of commit 1, a page and a chunk of commit 3.
  const std::vector<Bytes> victims = {bytes_of(102, 8192), bytes_of(105, 8192), bytes_of(307, 8192),
                                      bytes_of(3, 9000)};
  int flipped = 0;
  for (const auto& entry : fs::directory_iterator(folder.path() / "s" / "db")) {
    if (entry.path().extension() != ".sst") continue;
    std::string text = read_text(entry.path());
    for (const Bytes& bytes : victims) {
      const std::string needle(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (const auto at = text.find(needle); at != std::string::npos) {
        text[at + 1000] = static_cast<char>(text[at + 1000] ^ 1);
        ++flipped;
      }
    }
    write_text(entry.path(), text);
  }
  ASSERT_EQ(flipped, 4);
  auto store = open_rocksdb_store(folder.path() / "s");
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  const auto report = (*store)->verify();
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->pages, 24u);
  EXPECT_EQ(report->chunks, 3u);
  EXPECT_EQ(report->records, 3u);
  std::set<std::string> told;
  for (const Damage& damage : report->damage) {
    EXPECT_THAT(damage.file, ::testing::EndsWith(".sst"));
    told.insert(damage.what.substr(0, damage.what.find(':')));
  }
  EXPECT_EQ(told, (std::set<std::string>{"file of commit 1", "file of commit 3",
                                         "weights page pool 0 row 2 tile 1 of commit 1",
                                         "weights page pool 0 row 5 tile 1 of commit 1",
                                         "weights page pool 0 row 7 tile 3 of commit 3",
                                         "dense entry 'd3' chunk 0 of commit 3"}));
  Bytes payload(8192);
  const Status status = (*store)->read_page(weights(2, 1), payload);
  EXPECT_EQ(status.code(), StatusCode::corruption);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("weights page pool 0 row 2 tile 1"));
  EXPECT_THAT(status.message(), ::testing::HasSubstr(".sst"));
  EXPECT_TRUE((*store)->read_page(weights(3, 1), payload).ok());
  EXPECT_EQ((*store)->read_dense("d3").status().code(), StatusCode::corruption);
  EXPECT_TRUE((*store)->read_dense("d2").ok());
}

}  // namespace
}  // namespace perennial::storage::testing
