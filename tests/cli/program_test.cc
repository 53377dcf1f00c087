// SPDX-License-Identifier: Apache-2.0
// The built program, run as users run it: commands over a store, and wrong inputs, each with its
// exit code, one line on standard error (and a hint at most), and the store untouched.
#include "program_fixture.h"

namespace perennial::cli {
namespace {

TEST_F(ProgramTest, HelpAndVersion) {
  const Finished help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* part : {"usage: perennial COMMAND", "its history:", "its safety:", "snapshot",
                           "log", "restore", "verify", "streams"}) {
    EXPECT_THAT(help.out, HasSubstr(part));
  }
  EXPECT_EQ(run({"help"}).out, help.out);
  EXPECT_EQ(run({"-h"}).out, help.out);
  const Finished version = run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, "perennial " PERENNIAL_VERSION "\n");
}

TEST_F(ProgramTest, EveryCommandHasHelpOfAtMost100Columns) {
  // Those that `perennial --help` lists.
  std::vector<std::string> commands;
  std::istringstream listed(run({"--help"}).out);
  for (std::string line; std::getline(listed, line);) {
    if (line.starts_with("  ")) commands.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  ASSERT_GE(commands.size(), 20U);
  for (const std::string& command : commands) {
    const Finished help = run({command, "--help"});
    SCOPED_TRACE(command);
    EXPECT_EQ(help.code, 0);
    EXPECT_EQ(help.err, "");
    for (const char* part : {"usage: perennial ", "--json", "example:\n  perennial "}) {
      EXPECT_THAT(help.out, HasSubstr(part));
    }
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
    EXPECT_EQ(run({"help", command}).out, help.out);
    EXPECT_EQ(run({command, "-h"}).out, help.out);
    EXPECT_EQ(help.out.find("(default cpu) (default"), std::string::npos);
  }
}

TEST_F(ProgramTest, RefusesWrongUsage) {
  expect_refused({}, 2, {"no command given"});
  expect_refused({"lgo"}, 2, {"unknown command 'lgo'", "did you mean 'log'?"});
  expect_refused({"qqqqqqqqqq"}, 2, {"unknown command 'qqqqqqqqqq'"});
  expect_refused({"--store", store_}, 2, {"unknown flag '--store'", "a command comes first"});
  expect_refused({"log", "--stor", store_}, 2, {"'--stor'", "did you mean '--store'?"});
  expect_refused({"log"}, 2, {"--store DIR is missing"});
  expect_refused({"log", "--store"}, 2, {"--store needs a value"});
  expect_refused({"log", "--store="}, 2, {"--store needs a value"});
  expect_refused({"log", "--store", store_, "--last", "-2"}, 2, {"--last is -2"});
  expect_refused({"log", "--store", store_, "--last", "many"}, 2, {"'many'", "integer"});
  expect_refused({"log", "--store", store_, "more"}, 2, {"unexpected argument 'more'"});
  expect_refused({"streams", "--quiet", "--quiet"}, 2, {"--quiet is given more than once"});
  expect_refused({"help", "lgo"}, 2, {"did you mean 'log'?"});
}

TEST_F(ProgramTest, SaysWhatWentWrongAsJson) {
  const auto failed = [&](const std::vector<std::string>& args, int code, const char* part) {
    const Finished finished = run(args);
    SCOPED_TRACE(finished.out);
    EXPECT_EQ(finished.code, code);
    EXPECT_EQ(std::count(finished.out.begin(), finished.out.end(), '\n'), 1);
    const boost::json::object object = finished.json();
    EXPECT_EQ(object.at("code"), code);
    const std::string error(object.at("error").as_string());
    EXPECT_THAT(error, HasSubstr(part));
    EXPECT_TRUE(finished.err.starts_with("perennial: ")) << finished.err;
  };
  failed({"log", "--json"}, 2, "--store DIR is missing");
  failed({"lgo", "--json"}, 2, "unknown command");
  failed({"log", "--store", (folder_ / "none").string(), "--json"}, 3, "none");
  failed({"log", "--store", (folder_ / "caf\xE9").string(), "--json"}, 3, "caf\xEF\xBF\xBD");
  failed({"streams", "--json", "--json"}, 2, "--json is given more than once");
}

TEST_F(ProgramTest, RefusesWhatIsNoStoreAndLeavesItAlone) {
  fs::create_directories(folder_ / "empty");
  fs::create_directories(folder_ / "other");
  std::ofstream(folder_ / "other" / "letter.txt") << "dear reader";
  std::ofstream(folder_ / "file") << "not a folder";
  const auto before = content(folder_ / "other");
  for (const char* command : {"log", "verify", "snapshot", "restore"}) {
    const auto with = [&](const std::string& folder) {
      std::vector<std::string> args = {command, "--store", (folder_ / folder).string()};
      if (args[0] == "snapshot") args.insert(args.end(), {"--name", "x"});
      if (args[0] == "restore") args.insert(args.end(), {"--to", "1"});
      return args;
    };
    SCOPED_TRACE(command);
    expect_refused(with("absent"), 3, {"no store in", "absent"});
    expect_refused(with("empty"), 3, {"no store in", "empty"});
    expect_refused(with("other"), 2, {"other", "no store"});
    expect_refused(with("file"), 2, {"file", "no folder"});
  }
  EXPECT_FALSE(fs::exists(folder_ / "absent"));
  EXPECT_TRUE(fs::is_empty(folder_ / "empty"));
  EXPECT_EQ(content(folder_ / "other"), before);
}

TEST_F(ProgramTest, RefusesAStoreInUseNamingItsHolder) {
  make_store();
  const auto held = storage::open_rocksdb_store(store_);
  ASSERT_TRUE(held.ok());
  for (const char* command : {"snapshot", "gc", "repair"}) {
    std::vector<std::string> args = {command, "--store", store_};
    if (args[0] == "snapshot") args.insert(args.end(), {"--name", "x"});
    expect_refused(args, 1, {store_, std::to_string(::getpid())});
  }
  // Who only reads is not in the way.
  for (const char* command : {"log", "verify"}) {
    EXPECT_EQ(run({command, "--store", store_}).code, 0) << command;
  }
}

TEST_F(ProgramTest, RefusesAStoreOfANewerFormat) {
  make_store();
  const fs::path format = fs::path(store_) / "FORMAT";
  const std::string before = read_file(format);
  const std::size_t end = before.find('\n');
  const std::size_t number = before.find_last_of(' ', end) + 1;
  const std::size_t digest = before.find_last_of(' ') + 1;
  const std::string line = before.substr(0, number) + "9999\n";
  const std::string newer = line + before.substr(end + 1, digest - end - 1) +
                            storage::digest_of(std::as_bytes(std::span(line))).hex() + "\n";
  std::ofstream(format, std::ios::binary) << newer;
  const auto files = content(store_);
  expect_refused({"log", "--store", store_}, 3, {"format 9999"});
  EXPECT_EQ(content(store_), files);
  std::ofstream(format, std::ios::binary) << "scribbled over";
  expect_refused({"log", "--store", store_}, 3, {"FORMAT"});
}

TEST_F(ProgramTest, SnapshotsLogsAndRestores) {
  make_store();
  const Finished named = run({"snapshot", "--store", store_, "--name", "good", "--json"});
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_EQ(named.json().at("commit"), 3);
  const std::string good(named.json().at("state_digest").as_string());

  const Finished restored = run({"restore", "--store", store_, "--to", "1", "--json"});
  ASSERT_EQ(restored.code, 0) << restored.err;
  EXPECT_EQ(restored.json().at("commit"), 4);
  EXPECT_EQ(restored.json().at("restored"), 1);
  EXPECT_NE(std::string(restored.json().at("state_digest").as_string()), good);

  const Finished back =
      run({"restore", "--store", store_, "--to", "good", "--name", "again", "--json"});
  ASSERT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(std::string(back.json().at("state_digest").as_string()), good);
  {
    const auto store = storage::open_rocksdb_store(store_);
    ASSERT_TRUE(store.ok());
    const auto text = store.value()->read_dense("text");
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(text.value().size(), 3U);
    EXPECT_EQ(static_cast<char>(text.value()[0]), 't');
  }

  const Finished log = run({"log", "--store", store_, "--json"});
  ASSERT_EQ(log.code, 0) << log.err;
  const boost::json::array commits = log.json().at("commits").as_array();
  ASSERT_EQ(commits.size(), 5U);
  EXPECT_EQ(commits[0].at("note").at("text"), "one");
  EXPECT_EQ(commits[2].at("snapshot"), "good");
  EXPECT_EQ(commits[4].at("snapshot"), "again");
  EXPECT_EQ(commits[4].at("note").at("from"), 3);
  EXPECT_EQ(commits[1].at("state_digest"), commits[2].at("state_digest"));
  for (const char* field : {"pages_written", "file_bytes", "live_bytes", "dead_bytes", "unix_ms"}) {
    EXPECT_TRUE(commits[4].as_object().contains(field)) << field;
  }
  EXPECT_EQ(log.err.find('{'), std::string::npos);

  const Finished people = run({"log", "--store", store_, "--last", "2"});
  EXPECT_EQ(people.code, 0);
  EXPECT_EQ(people.err, "");
  EXPECT_THAT(people.out, HasSubstr("again"));
  EXPECT_THAT(people.out, HasSubstr(good.substr(0, 12)));
  EXPECT_THAT(people.out, HasSubstr("5 commits"));
  EXPECT_THAT(people.out, ::testing::Not(HasSubstr("write")));
}

TEST_F(ProgramTest, RefusesNamesThatDoNotFit) {
  make_store();
  ASSERT_EQ(run({"snapshot", "--store", store_, "--name", "good"}).code, 0);
  const auto files = run({"log", "--store", store_, "--json"}).json().at("commits");
  expect_refused({"snapshot", "--store", store_, "--name", "good"}, 2, {"good"});
  expect_refused({"snapshot", "--store", store_, "--name", "a/b"}, 2, {"a/b"});
  expect_refused({"restore", "--store", store_, "--to", "bad"}, 3, {"bad"});
  expect_refused({"restore", "--store", store_, "--to", "99"}, 3, {"99"});
  EXPECT_EQ(run({"log", "--store", store_, "--json"}).json().at("commits"), files);
}

TEST_F(ProgramTest, VerifiesAndNamesDamage) {
  make_store();
  const Finished whole = run({"verify", "--store", store_, "--json"});
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_EQ(whole.json().at("intact"), true);
  EXPECT_EQ(whole.json().at("records"), 2);
  EXPECT_THAT(run({"verify", "--store", store_}).out, HasSubstr("all intact"));

  // One flipped byte in the middle of a commit's file.
  fs::path victim;
  for (const auto& entry : fs::directory_iterator(fs::path(store_) / "db")) {
    if (entry.path().extension() == ".sst") victim = std::max(victim, entry.path());
  }
  std::string bytes = read_file(victim);
  bytes[bytes.size() / 3] = static_cast<char>(bytes[bytes.size() / 3] ^ 0x20);
  std::ofstream(victim, std::ios::binary) << bytes;
  const Finished broken = run({"verify", "--store", store_, "--json"});
  EXPECT_EQ(broken.code, 3);
  EXPECT_THAT(broken.err, HasSubstr("perennial: "));
  // Found either when opening, or by verify itself, which then says so in its result.
  const boost::json::object result = broken.json();
  if (result.contains("error")) {
    EXPECT_EQ(result.at("code"), 3);
  } else {
    EXPECT_EQ(result.at("intact"), false);
    EXPECT_FALSE(result.at("damage").as_array().empty());
  }
  EXPECT_THAT(broken.err + broken.out, HasSubstr(victim.filename().string()));
}

TEST_F(ProgramTest, ListsStreams) {
  const Finished streams = run({"streams", "--json"});
  ASSERT_EQ(streams.code, 0) << streams.err;
  const boost::json::array kinds = streams.json().at("streams").as_array();
  ASSERT_EQ(kinds.size(), 4U);
  EXPECT_EQ(streams.json().at("scenarios").as_array().size(), 3U);
  EXPECT_FALSE(streams.json().at("datasets").as_array().empty());
  EXPECT_EQ(kinds[0].at("name"), "permuted");
  EXPECT_FALSE(kinds[0].at("meaning").as_string().empty());
  const Finished people = run({"streams"});
  EXPECT_EQ(people.err, "");
  EXPECT_THAT(people.out, HasSubstr("split"));
  const Finished quiet = run({"streams", "--json", "--quiet"});
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(quiet.out, streams.out);
}

TEST_F(ProgramTest, FailsWhenStandardOutputIsFull) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const std::string command =
      std::string("'") + PERENNIAL_PROGRAM + "' streams >/dev/full 2>" + (folder_ / "err").string();
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_EQ(read_file(folder_ / "err"), "perennial: standard output cannot be written\n");
}

}  // namespace
}  // namespace perennial::cli
