// SPDX-License-Identifier: Apache-2.0
// The built program on a user's own tables: learnt, continued on the next day with a new class,
// followed as they grow, predicted with and reported on; killed on the way.
#include <signal.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

class OwnTableTest : public LearningTest {
 protected:
  // Rows with a text label, some of them without a value.
  static std::string rows(int count, const Args& states, unsigned seed) {
    std::mt19937 random(seed);
    std::string text;
    for (int i = 0; i < count; ++i) {
      const std::size_t state = static_cast<std::size_t>(i) % states.size();
      const std::string& name = states[state];
      const int centre = static_cast<int>(name.size()) * 20;
      for (const int sign : {1, -1, 2}) {
        const auto noise = static_cast<int>(random() % 16);
        text += random() % 50 == 0 ? "" : std::to_string(sign * centre + noise);
        text += ',';
      }
      text += '"' + name + "\"\n";
    }
    return text;
  }
  static std::string header() { return "temperature,vibration,current,state\n"; }

  void SetUp() override {
    write_file(folder_ / "monday.csv",
               header() + rows(1500, {"ok", "loose belt"}, 1) + "12,no number,3,ok\n12,3,ok\n");
    // Columns in another order, one more of them, and a new label.
    std::istringstream lines(rows(900, {"loose belt", "blocked, hot fan"}, 2));
    std::string tuesday = "machine,current,temperature,vibration,state\n", line;
    for (int i = 0; std::getline(lines, line); ++i) {
      std::istringstream cells(line);
      std::string a, b, c, name;
      std::getline(cells, a, ',');
      std::getline(cells, b, ',');
      std::getline(cells, c, ',');
      std::getline(cells, name);
      tuesday += std::to_string(i) + "," + c + "," + a + "," + b + "," + name + "\n";
    }
    write_file(folder_ / "tuesday.csv", tuesday);
    write_file(folder_ / "new.csv",
               "vibration,temperature,current\n-40,40,80\n-200,200,\n-320,320,640\n");
  }
  Args monday(const std::string& store) const {
    return {"train",
            "--store",
            path(store),
            "--dataset",
            path("monday.csv"),
            "--stream",
            "single",
            "--label-column",
            "state",
            "--missing-values",
            "mean",
            "--bad-rows",
            "skip",
            "--model",
            "mlp",
            "--strategy",
            "er",
            "--hidden",
            "32",
            "--lr",
            "0.01",
            "--batch",
            "32",
            "--threads",
            "1",
            "--epochs",
            "3",
            "--commit-every",
            "5"};
  }
  Args tuesday(const std::string& store) const {
    return {"train",     "--store",           path(store), "--continue",
            "--dataset", path("tuesday.csv"), "--threads", "1"};
  }
};

TEST_F(OwnTableTest, IsLearntContinuedPredictedWithAndReportedOn) {
  const Finished first = run(monday("store") + Args{"--json"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("2 of 1502 rows skipped: line 1502, column 2 ('vibration')"));
  EXPECT_THAT(first.err, HasSubstr("line 1503"));
  EXPECT_GT(first.object().at("acc").as_double(), 0.95);
  fs::remove(folder_ / "monday.csv");  // the store keeps what it needs of it

  const json::object second = succeed(tuesday("store"));
  EXPECT_EQ(second.at("finished"), true);
  const json::array& matrix = second.at("matrix").as_array();
  ASSERT_EQ(matrix.size(), 3U);
  EXPECT_TRUE(matrix[0].at(1).is_null());
  EXPECT_TRUE(matrix[1].at(1).is_double());
  EXPECT_GT(matrix[2].at(0).as_double(), 0.9);
  EXPECT_GT(matrix[2].at(1).as_double(), 0.9);

  // Given twice it learns once; what is stored can be evaluated without any file.
  const json::value log = commits("store");
  EXPECT_EQ(succeed(tuesday("store")).at("state_digest"), second.at("state_digest"));
  EXPECT_EQ(commits("store"), log);
  fs::remove(folder_ / "tuesday.csv");
  const json::object evaluated = succeed({"eval", "--store", path("store")});
  EXPECT_EQ(evaluated.at("accuracy"), matrix[2]);
  EXPECT_EQ(
      succeed({"eval", "--store", path("store"), "--at", "experience-1"}).at("accuracy").at(0),
      matrix[1].at(0));

  const json::object predicted =
      succeed({"predict", "--store", path("store"), "--input", path("new.csv")});
  const json::array& labels = predicted.at("predictions").as_array();
  ASSERT_EQ(labels.size(), 3U);
  EXPECT_EQ(labels[0].at("label"), "ok");
  EXPECT_EQ(labels[1].at("label"), "loose belt");
  EXPECT_EQ(labels[2].at("label"), "blocked, hot fan");

  succeed({"report", "--runs", path("store"), "--out", path("page.html")});
  EXPECT_THAT(read_file(folder_ / "page.html"), HasSubstr("</html>"));
}

// Text of another encoding never makes a store that cannot be opened again.
TEST_F(OwnTableTest, TextThatIsNotUtf8IsRefusedOrDecoded) {
  std::string table = "H\xF6he;Druck;Zustand\n";
  for (int i = 0; i < 60; ++i) {
    table += std::to_string(i % 7 + (i % 2) * 40) + ";" + std::to_string(i % 5) + ";" +
             (i % 2 == 0 ? "gr\xFCn\n" : "\"r\xF6tlich,\nmatt\"\n");
  }
  write_file(folder_ / "latin.csv", table);
  const auto learn = [&](const std::string& dataset, const Args& more = {}) {
    return Args{"train",   "--store", path("store"), "--dataset", dataset,    "--stream",  "single",
                "--model", "mlp",     "--strategy",  "naive",     "--hidden", "16",        "--lr",
                "0.01",    "--batch", "8",           "--epochs",  "10",       "--threads", "1"} +
           more;
  };
  expect_refused(learn(path("latin.csv")), 3, {"latin.csv", "line 1, column 1", "encoding"});
  table.replace(1, 1, "\xC3\xB6");
  write_file(folder_ / "labels.csv", table);
  expect_refused(learn(path("labels.csv")), 3, {"labels.csv", "line 2, column 3", "encoding"});
  fs::copy_file(folder_ / "latin.csv", folder_ / "caf\xE9.csv");
  expect_refused(learn(path("caf\xE9.csv"), {"--encoding", "latin1"}), 2, {"dataset", "not UTF-8"});
  expect_refused(learn(path("latin.csv"), {"--encoding", "latin-one"}), 2,
                 {"encoding is 'latin-one'"});
  EXPECT_FALSE(fs::exists(folder_ / "store"));

  EXPECT_GT(succeed(learn(path("latin.csv"), {"--encoding", "latin1"})).at("acc").as_double(), 0.9);
  succeed({"eval", "--store", path("store")});
  succeed({"inspect", "--store", path("store")});
  write_file(folder_ / "new.csv", "Druck;H\xF6he\n1;3\n2;44\n");
  const json::object predicted =
      succeed({"predict", "--store", path("store"), "--input", path("new.csv")});
  EXPECT_EQ(predicted.at("predictions").at(0).at("label"), "gr\xC3\xBCn");
  EXPECT_EQ(predicted.at("predictions").at(1).at("label"), "r\xC3\xB6tlich,\nmatt");
  // A good store stays one.
  const Args more = {"train",     "--store", path("store"), "--continue",
                     "--threads", "1",       "--dataset"};
  const json::value log = commits("store");
  expect_refused(more + Args{path("labels.csv"), "--encoding", "utf-8"}, 3, {"line 2, column 3"});
  expect_refused(more + Args{path("caf\xE9.csv")}, 2, {"dataset", "not UTF-8"});
  EXPECT_EQ(commits("store"), log);
}

TEST_F(OwnTableTest, GoesOnAfterAKillToTheSameState) {
  succeed(monday("whole"));
  const json::object whole = succeed(tuesday("whole"));
  succeed(monday("killed"));
  for (int i = 0; i < 3; ++i) kill_in(tuesday("killed"), "killed");
  const json::object resumed = succeed({"train", "--store", path("killed"), "--threads", "1"});
  EXPECT_EQ(resumed.at("finished"), true);
  // A kill may have come before the first commit of the new experience.
  const json::object again = succeed(tuesday("killed"));
  EXPECT_EQ(again.at("state_digest"), whole.at("state_digest"));
  EXPECT_EQ(again.at("matrix"), whole.at("matrix"));
  EXPECT_EQ(run({"verify", "--store", path("killed")}).code, 0);
}

TEST_F(OwnTableTest, IsFollowedAndGoesOnAfterAKill) {
  const fs::path file = folder_ / "growing.csv";
  write_file(file, header() + rows(800, {"ok", "loose belt"}, 3) +
                       rows(400, {"ok", "blocked, hot fan"}, 4));
  const auto follow = [&](const std::string& store) {
    return Args{
        "train",         "--store", path(store),      "--dataset", file.string(),      "--follow",
        "--follow-rows", "400",     "--follow-idle",  "0.1",       "--missing-values", "mean",
        "--model",       "mlp",     "--strategy",     "er",        "--hidden",         "32",
        "--lr",          "0.01",    "--batch",        "32",        "--threads",        "1",
        "--epochs",      "3",       "--commit-every", "5"};
  };
  const json::object whole = succeed(follow("whole"));
  EXPECT_EQ(whole.at("matrix").as_array().size(), 4U);
  EXPECT_GT(whole.at("acc").as_double(), 0.9);
  for (int i = 0; i < 3; ++i) kill_in(follow("killed"), "killed");
  const json::object resumed = succeed(follow("killed"));
  EXPECT_EQ(resumed.at("state_digest"), whole.at("state_digest"));
  EXPECT_EQ(resumed.at("matrix"), whole.at("matrix"));

  // It waits, and Ctrl-C ends it; the settings are the store's.
  std::ofstream(file, std::ios::app) << rows(400, {"ok", "loose belt"}, 5);
  const pid_t child = start({"train", "--store", path("killed"), "--follow", "--json"});
  const fs::path record = events("killed");
  for (int wait = 0; wait < 5000; ++wait) {
    if (read_file(record).find("\"row\":4") != std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  ::kill(child, SIGINT);
  const Finished ended = finish(child);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(ended.object().at("matrix").as_array().size(), 5U);
  EXPECT_EQ(succeed({"eval", "--store", path("killed")}).at("accuracy").as_array().size(), 4U);
}

TEST_F(OwnTableTest, RefusesBeforeAnythingStarts) {
  Args strict = monday("store");
  *std::find(strict.begin(), strict.end(), "skip") = "refuse";
  expect_refused(strict, 3, {"monday.csv", "line 1502", "'no number'"});
  EXPECT_FALSE(fs::exists(folder_ / "store"));
  expect_refused(tuesday("store"), 2, {"--continue", "no"});
  EXPECT_FALSE(fs::exists(folder_ / "store"));
  succeed(monday("store"));
  const json::value log = commits("store");
  expect_refused({"train", "--store", path("store"), "--continue"}, 2, {"--continue", "--dataset"});
  expect_refused({"train", "--quiet", "--store", path("store"), "--dataset", path("tuesday.csv")},
                 3, {"data set is not the one"});
  expect_refused(tuesday("store") + Args{"--hidden", "16"}, 2, {"model.hidden: 32 stored, 16"});
  expect_refused({"train", "--store", path("store"), "--follow-rows", "7"}, 2, {"--follow"});
  expect_refused({"train", "--store", path("store"), "--follow"}, 2, {"monday.csv", "as a whole"});
  write_file(folder_ / "narrow.csv", "temperature,state\n1,ok\n2,ok\n3,ok\n");
  expect_refused({"train", "--store", path("store"), "--continue", "--dataset", path("narrow.csv")},
                 3, {"narrow.csv", "'vibration'", "learnt"});
  EXPECT_EQ(commits("store"), log);
}

}  // namespace
}  // namespace perennial::cli
