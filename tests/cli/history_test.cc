// SPDX-License-Identifier: Apache-2.0
// The built program over the history of a store that a library made: diff, drop, gc, copy, restore
// --drop-later, scrub, repair, reshard, inspect, and what each of them refuses.
#include <cstddef>
#include <utility>

#include "program_fixture.h"

namespace perennial::cli {
namespace {

using Args = std::vector<std::string>;

constexpr std::uint32_t kExperts = 4, kFloats = 64;
constexpr std::size_t kPageBytes = std::size_t{kExperts} * kFloats * sizeof(float);

class HistoryTest : public ProgramTest {
 protected:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // Commits `rows` with pages of bytes that `seed` decides, and a dense entry.
  static void write(storage::PageStore& store, const std::vector<std::uint32_t>& rows,
                    unsigned seed, const std::string& snapshot = {}) {
    std::map<std::uint32_t, storage::Bytes> payloads;
    storage::CommitRequest request;
    for (const std::uint32_t row : rows) {
      storage::Bytes& bytes = payloads[row];
      unsigned state = seed * 7919 + row + 1;
      for (std::size_t i = 0; i < kPageBytes; ++i) {
        state = state * 1664525 + 1013904223;
        bytes.push_back(static_cast<std::byte>(i % 4 == 3 ? 0x3F : state >> 24));
      }
      const std::span<const std::byte> view(bytes);
      request.pages.push_back(
          {.id = {.row = row},
           .shape = {.experts = kExperts, .record_floats = kFloats},
           .payload = [view]() -> storage::Result<std::span<const std::byte>> { return view; }});
    }
    request.dense["text"] = storage::Bytes(5, static_cast<std::byte>('a' + seed));
    request.snapshot = snapshot;
    request.retention = storage::Retention::all();
    const auto info = store.commit(request);
    ASSERT_TRUE(info.ok()) << info.status().message();
  }

  // Commits 1 ("first": rows 0 to 3), 2 (rows 1 and 4 new), 3 ("third": row 2 new).
  void make_history(const std::string& folder) const {
    auto store = storage::open_rocksdb_store(folder, {.mode = storage::OpenMode::create});
    ASSERT_TRUE(store.ok()) << store.status().message();
    write(**store, {0, 1, 2, 3}, 0, "first");
    write(**store, {1, 4}, 1);
    write(**store, {2}, 2, "third");
  }

  boost::json::object succeed(Args args) const {
    args.emplace_back("--json");
    const Finished finished = run(args);
    EXPECT_EQ(finished.code, 0) << args[0] << ": " << finished.err;
    return finished.code == 0 ? finished.json() : boost::json::object{};
  }
  std::string digest(const std::string& folder) const {
    const auto view = storage::open_rocksdb_view(folder, {});
    return view.ok() ? view.value()->head()->state_digest.hex() : view.status().message();
  }
  boost::json::array commits(const std::string& folder) const {
    return succeed({"log", "--store", folder}).at("commits").as_array();
  }
};

TEST_F(HistoryTest, EveryCommandRefusesWrongArguments) {
  make_history(store_);
  const auto before = digest(store_);
  const Args at = {"--store", store_};
  const auto with = [&](const char* command, const Args& more) {
    Args args = {command};
    args.insert(args.end(), at.begin(), at.end());
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  expect_refused(with("diff", {}), 2, {"--from NAME|N is missing"});
  expect_refused(with("diff", {"--from", "none"}), 3, {"no snapshot or commit 'none'"});
  expect_refused(with("diff", {"--from", "1", "--to", "9"}), 3, {"'9'"});
  expect_refused(with("drop", {}), 2, {"--commits"});
  expect_refused(with("drop", {"--commits", "1,,2"}), 2, {"1,,2", "empty part"});
  expect_refused(with("drop", {"--commits", "third"}), 2, {"commit 3 is the current one"});
  expect_refused(with("drop", {"--commits", "first,none"}), 3, {"'none'"});
  expect_refused(with("copy", {}), 2, {"--into DIR is missing"});
  expect_refused(with("copy", {"--into", store_}), 2, {"the store itself"});
  expect_refused(with("copy", {"--into", path("no"), "--at", "none"}), 3, {"'none'"});
  expect_refused(with("gc", {"--keep-last", "-1"}), 2, {"--keep-last is -1"});
  expect_refused(with("gc", {"--target-space", "0.5"}), 2, {"--target-space is 0.5"});
  expect_refused(with("gc", {"--rate", "fast"}), 2, {"--rate", "'fast'"});
  expect_refused(with("scrub", {"--at", "1"}), 2, {"--at"});
  expect_refused(with("repair", {"--copy", path("no")}), 3, {"no store in"});
  expect_refused(with("restore", {"--to", "none", "--drop-later"}), 3, {"'none'"});
  expect_refused(with("export", {"--into", path("file")}), 3, {"holds no run"});
  expect_refused(with("import", {"--file", path("file")}), 3, {"holds no run"});
  expect_refused(with("eval", {}), 3, {"holds no run"});
  expect_refused({"reshard", "--from", store_}, 2, {"--into DIR,... is missing"});
  expect_refused({"reshard", "--from", store_, "--into", "a,,b"}, 2, {"empty part"});
  for (const char* made : {"no", "file"}) EXPECT_FALSE(fs::exists(path(made))) << made;
  EXPECT_EQ(digest(store_), before);
  EXPECT_EQ(commits(store_).size(), 3U);
}

TEST_F(HistoryTest, MissingStoresAreNotMade) {
  for (const Args& args :
       {Args{"diff", "--store", path("no"), "--from", "1"},
        Args{"drop", "--store", path("no"), "--commits", "1"},
        Args{"copy", "--store", path("no"), "--into", path("copy")},
        Args{"gc", "--store", path("no")}, Args{"scrub", "--store", path("no")},
        Args{"repair", "--store", path("no")}, Args{"inspect", "--store", path("no")},
        Args{"export", "--store", path("no"), "--into", path("file")},
        Args{"import", "--store", path("no"), "--file", path("file")},
        Args{"reshard", "--from", path("no"), "--into", path("copy")}}) {
    SCOPED_TRACE(args[0]);
    expect_refused(args, 3, {"no store in"});
  }
  for (const char* made : {"no", "copy", "file"}) EXPECT_FALSE(fs::exists(path(made))) << made;
}

TEST_F(HistoryTest, DiffNamesWhatChanged) {
  make_history(store_);
  const auto diff = succeed({"diff", "--store", store_, "--from", "first", "--to", "2"});
  EXPECT_EQ(diff.at("pages_added"), 1);
  EXPECT_EQ(diff.at("pages_removed"), 0);
  EXPECT_EQ(diff.at("pages_changed"), 1);
  EXPECT_EQ(diff.at("dense_changed"), boost::json::array{"text"});
  const Finished pages = run({"diff", "--store", store_, "--from", "1", "--pages"});
  EXPECT_THAT(pages.out, HasSubstr("+ weights page pool 0 row 4 tile 0\n"));
  EXPECT_THAT(pages.out, HasSubstr("~ weights page pool 0 row 1 tile 0\n"));
  EXPECT_THAT(pages.out, HasSubstr("dense state changed:\n  text\n"));
  EXPECT_EQ(succeed({"diff", "--store", store_, "--from", "third"}).at("equal"), true);
}

TEST_F(HistoryTest, DropsRollsBackAndGivesSpaceBack) {
  make_history(store_);
  const std::string third = digest(store_);
  const boost::json::object dropped = succeed({"drop", "--store", store_, "--commits", "2,2"});
  EXPECT_EQ(dropped.at("commit"), 4);
  EXPECT_EQ(dropped.at("dropped").as_array().size(), 1U);
  expect_refused({"restore", "--store", store_, "--to", "2"}, 3, {"commit 2 was dropped"});
  EXPECT_EQ(digest(store_), third);

  const Finished back = run({"restore", "--store", store_, "--to", "first", "--drop-later"});
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_THAT(back.out, HasSubstr("dropped 2 later commits, with the snapshots third;"));
  ASSERT_EQ(commits(store_).size(), 2U);
  EXPECT_EQ(commits(store_)[0].at("state_digest").as_string(), digest(store_));

  const auto gc = succeed({"gc", "--store", store_, "--keep-last", "1"});
  EXPECT_EQ(gc.at("keep_last"), 1);
  EXPECT_GT(gc.at("files_removed").to_number<int>(), 0);
  EXPECT_EQ(succeed({"verify", "--store", store_}).at("intact"), true);
  EXPECT_THAT(run({"gc", "--store", store_}).out, HasSubstr("snapshots, the last 1 commit\n"));
}

TEST_F(HistoryTest, ReadersKeepWhatTheyReadThroughGc) {
  make_history(store_);
  const auto view = storage::open_rocksdb_view(store_, {.snapshot = "2"});
  ASSERT_TRUE(view.ok());
  const std::string state = view.value()->head()->state_digest.hex();
  run({"drop", "--store", store_, "--commits", "2,first"});
  EXPECT_EQ(run({"gc", "--store", store_, "--keep-last", "1", "--max-dead", "0"}).code, 0);
  storage::Bytes payload(kPageBytes);
  for (const storage::PageId& id : view.value()->pages()) {
    EXPECT_TRUE(view.value()->read_page(id, payload).ok()) << to_string(id);
  }
  EXPECT_EQ(view.value()->head()->state_digest.hex(), state);
}

TEST_F(HistoryTest, CopiesOnlyWhatChanged) {
  make_history(store_);
  const std::string copy = path("copy");
  const Args again = {"copy", "--store", store_, "--into", copy};
  EXPECT_EQ(
      succeed({"copy", "--store", store_, "--into", copy, "--at", "first"}).at("pages_copied"), 4);
  const auto second = succeed(again);
  EXPECT_EQ(second.at("pages_copied"), 3);
  EXPECT_EQ(second.at("pages_kept"), 2);
  EXPECT_EQ(digest(copy), digest(store_));
  const auto third = succeed(again);
  EXPECT_EQ(third.at("up_to_date"), true);
  EXPECT_EQ(third.at("pages_copied"), 0);
  EXPECT_EQ(commits(copy).size(), 2U);

  const std::string foreign = path("foreign"), before = [&] {
    make_history(path("foreign"));
    return digest(path("foreign"));
  }();
  expect_refused({"copy", "--store", store_, "--into", foreign}, 2, {"foreign"});
  EXPECT_EQ(digest(foreign), before);
}

TEST_F(HistoryTest, RepairsFromACopyAndSaysWhatStaysBroken) {
  make_history(store_);
  ASSERT_EQ(run({"copy", "--store", store_, "--into", path("copy")}).code, 0);
  const std::string state = digest(store_);
  // A byte of a page of the first commit.
  fs::path victim;
  for (const auto& entry : fs::directory_iterator(fs::path(store_) / "db")) {
    if (entry.path().extension() != ".sst") continue;
    if (victim.empty() || entry.path() < victim) victim = entry.path();
  }
  std::string bytes = read_file(victim);
  bytes[1000] = static_cast<char>(bytes[1000] ^ 0x20);
  std::ofstream(victim, std::ios::binary) << bytes;

  const Finished verified = run({"verify", "--store", store_});
  EXPECT_EQ(verified.code, 3);
  for (const std::string& part :
       {victim.filename().string(), std::string("page pool 0 row 0"), std::string("commit 1")}) {
    EXPECT_THAT(verified.out, HasSubstr(part));
  }
  EXPECT_EQ(run({"scrub", "--store", store_}).code, 3);
  const Finished alone = run({"repair", "--store", store_});
  EXPECT_EQ(alone.code, 3);
  EXPECT_THAT(alone.out, HasSubstr("nothing can take its place"));
  EXPECT_THAT(alone.err, HasSubstr("stays damaged"));
  EXPECT_EQ(commits(store_).size(), 3U);

  const Args from_copy = {"repair", "--store", store_, "--copy", path("copy")};
  Args dry = from_copy;
  dry.emplace_back("--dry-run");
  EXPECT_EQ(succeed(dry).at("commit"), 0);
  const auto repaired = succeed(from_copy);
  EXPECT_GT(repaired.at("damaged").to_number<int>(), 0);
  EXPECT_EQ(repaired.at("unrepaired"), 0);
  EXPECT_EQ(digest(store_), state);
  EXPECT_EQ(succeed({"repair", "--store", store_}).at("damaged"), 0);
  // The older commits keep their damage; a copy takes the repaired state alone.
  EXPECT_EQ(run({"verify", "--store", store_}).code, 3);
  EXPECT_EQ(succeed({"copy", "--store", store_, "--into", path("clean")}).at("pages_copied"), 5);
  EXPECT_EQ(succeed({"verify", "--store", path("clean")}).at("intact"), true);
}

TEST_F(HistoryTest, ReshardsAndKeepsPartsApart) {
  make_history(store_);
  const std::string a = path("a"), b = path("b"), whole = path("whole");
  succeed({"reshard", "--from", store_, "--into", a + "," + b});
  expect_refused({"reshard", "--from", a, "--into", whole}, 2, {"1 of 2 parts"});
  expect_refused({"reshard", "--from", store_, "--into", whole + "," + whole}, 2, {"whole"});
  EXPECT_FALSE(fs::exists(whole));  // what failed leaves nothing behind
  EXPECT_TRUE(fs::exists(a));
  const Finished part = run({"inspect", "--store", a});
  EXPECT_EQ(part.code, 0) << part.err;
  EXPECT_THAT(part.out, HasSubstr("part 1 of 2"));
  // A backup of the whole does not become one of a part.
  ASSERT_EQ(run({"copy", "--store", store_, "--into", path("backup")}).code, 0);
  expect_refused({"copy", "--store", a, "--into", path("backup")}, 2, {"part"});
  EXPECT_EQ(digest(path("backup")), digest(store_));
  EXPECT_EQ(run({"copy", "--store", a, "--into", path("backup-a")}).code, 0);

  succeed({"reshard", "--from", b + "," + a, "--into", whole});
  EXPECT_EQ(digest(whole), digest(store_));
}

TEST_F(HistoryTest, InspectsAStoreWithoutARun) {
  make_history(store_);
  const auto json = succeed({"inspect", "--store", store_});
  EXPECT_EQ(json.at("commits"), 3);
  EXPECT_EQ(json.at("snapshots"), 2);
  EXPECT_EQ(json.at("pools").at(0).at("pages"), 5);
  EXPECT_EQ(json.at("dense").at(0).at("name"), "text");
  const Finished people = run({"inspect", "--store", store_, "--at", "first"});
  EXPECT_THAT(people.out, HasSubstr("3 commits, 2 snapshots"));
  EXPECT_THAT(people.out, HasSubstr("weights"));
  EXPECT_EQ(people.err, "");
}

}  // namespace
}  // namespace perennial::cli
