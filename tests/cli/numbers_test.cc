// SPDX-License-Identifier: Apache-2.0
// The built program on tables whose targets are numbers: learnt, continued, predicted in their
// units, evaluated, logged and reported on; what needs classes is refused before a store is made.
#include <algorithm>
#include <random>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

using ::testing::AllOf;

class NumbersTest : public LearningTest {
 protected:
  // price = 1000 size + 500 rooms + rise, rent = size / 10.
  static std::string houses(int count, int rise, unsigned seed) {
    std::mt19937 random(seed);
    std::string text = "size,rooms,price,rent\n";
    for (int i = 0; i < count; ++i) {
      const int size = 20 + static_cast<int>(random() % 100),
                rooms = static_cast<int>(random() % 6);
      text += std::to_string(size) + ',' + std::to_string(rooms) + ',' +
              std::to_string(1000 * size + 500 * rooms + rise) + ',' + std::to_string(size / 10) +
              '\n';
    }
    return text;
  }
  void SetUp() override {
    write_file(folder_ / "a.csv", houses(800, 0, 1));
    write_file(folder_ / "b.csv", houses(400, 20000, 2));
    write_file(folder_ / "offers.csv", "rooms,size\n2,100\n4,50\n");
  }
  Args learn(const std::string& store, const std::string& targets = "price,rent",
             const std::string& strategy = "er", const std::string& stream = "single") const {
    return {"train",      "--store",    path(store),   "--task",
            "regression", "--dataset",  path("a.csv"), "--target-column",
            targets,      "--stream",   stream,        "--model",
            "mlp",        "--strategy", strategy,      "--epochs",
            "20",         "--batch",    "16",          "--lr",
            "0.01",       "--hidden",   "32",          "--threads",
            "1"};
  }
};

TEST_F(NumbersTest, AreLearntPredictedAndReportedInTheirUnits) {
  const boost::json::object learnt = succeed(learn("s"));
  EXPECT_GT(learnt.at("r2").as_double(), 0.95);
  EXPECT_FALSE(learnt.contains("acc"));
  const double error = learnt.at("rmse").at("price").at(0).as_double();
  EXPECT_GT(error, 1);
  EXPECT_LT(error, 8000);

  const boost::json::object answer =
      succeed({"predict", "--store", path("s"), "--input", path("offers.csv")});
  const boost::json::object first = answer.at("predictions").at(0).as_object();
  EXPECT_NEAR(first.at("price").as_double(), 101000, 8000);
  EXPECT_NEAR(first.at("rent").as_double(), 10, 1.5);
  const Finished csv = run({"predict", "--store", path("s"), "--input", path("offers.csv")});
  EXPECT_TRUE(csv.out.starts_with("row,price,rent,generation\n0,")) << csv.out;

  const boost::json::object both = succeed(
      {"train", "--store", path("s"), "--continue", "--dataset", path("b.csv"), "--threads", "1"});
  EXPECT_EQ(both.at("matrix").as_array().size(), 3U);
  EXPECT_EQ(both.at("matrix").at(1).at(0), learnt.at("matrix").at(1).at(0));
  EXPECT_EQ(both.at("rmse").at("rent").as_array().size(), 2U);
  fs::remove(folder_ / "a.csv");
  fs::remove(folder_ / "b.csv");
  const boost::json::object eval = succeed({"eval", "--store", path("s")});
  EXPECT_EQ(eval.at("r2"), both.at("r2"));
  EXPECT_EQ(eval.at("rmse"), both.at("rmse"));
  EXPECT_THAT(run({"log", "--store", path("s")}).out, HasSubstr("  r2  "));
  EXPECT_THAT(run({"inspect", "--store", path("s")}).out, HasSubstr("2 inputs, 2 targets"));
  const Finished report =
      run({"report", "--runs", path("s"), "--out", path("page.html"), "--quiet"});
  EXPECT_EQ(report.code, 0) << report.err;
  const std::string page = read_file(folder_ / "page.html");
  EXPECT_THAT(page, HasSubstr("mean R squared on all test sets"));
  EXPECT_EQ(page.find("percent of the test"), std::string::npos);
}

// The choice is told, stored, and that of nobody who chose.
TEST_F(NumbersTest, AreSolvedForWhereNobodyChoseAModel) {
  const Args bare = {"train",      "--store",   path("bare"),  "--task",
                     "regression", "--dataset", path("a.csv"), "--target-column",
                     "price",      "--stream",  "single",      "--threads",
                     "1"};
  const auto of = [&](const std::string& store, const Args& more = {}) {
    Args args = bare + more;
    args[2] = path(store);
    return args;
  };
  const std::string choice = "--head analytic --strategy naive";
  const Finished first = run(bare + Args{"--json"});
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("note: no model and no strategy was chosen"));
  EXPECT_THAT(first.err, HasSubstr(choice));
  EXPECT_GT(first.object().at("r2").as_double(), 0.99);
  const boost::json::object chosen =
      succeed(of("chosen", {"--head", "analytic", "--strategy", "naive"}));
  EXPECT_EQ(first.object().at("state_digest"), chosen.at("state_digest"));

  // A store's run goes on as it began, and so does what it was told to be.
  const Finished both = run({"train", "--store", path("bare"), "--continue", "--dataset",
                             path("b.csv"), "--threads", "1", "--json"});
  ASSERT_EQ(both.code, 0) << both.err;
  EXPECT_EQ(both.err.find(choice), std::string::npos) << both.err;
  EXPECT_EQ(both.object().at("matrix").as_array().size(), 3U);
  succeed(of("trained", {"--model", "peer", "--query-norm", "layer"}));
  EXPECT_EQ(run(of("trained")).err.find(choice), std::string::npos);

  const Finished followed = run({"train", "--store", path("followed"), "--follow", "--task",
                                 "regression", "--dataset", path("a.csv"), "--target-column",
                                 "price", "--follow-rows", "400", "--follow-idle", "0.1"});
  EXPECT_EQ(followed.code, 0) << followed.err;
  EXPECT_THAT(followed.err, AllOf(HasSubstr(choice), HasSubstr("experience 2: r2 ")));
  EXPECT_EQ(run({"train", "--store", path("followed"), "--follow", "--follow-idle", "0.1"})
                .err.find(choice),
            std::string::npos);

  const auto head = [&](const Args& more) {
    const Finished printed = run(of("none", more) + Args{"--print-config"});
    EXPECT_EQ(printed.code, 0) << printed.err;
    return json::parse(printed.out).at("model").at("head").as_string();
  };
  EXPECT_EQ(head({}), "analytic");
  EXPECT_EQ(head({"--set", "model.peer.heads=4"}), "trained");
  EXPECT_EQ(head({"--lr", "0.01"}), "trained");
  write_file(folder_ / "some.json", R"({"train": {"epochs": 2}})");
  EXPECT_EQ(head({"--config", path("some.json")}), "trained");
  EXPECT_FALSE(fs::exists(folder_ / "none"));
}

TEST_F(NumbersTest, AreFollowedAndGoOnAfterAKill) {
  write_file(folder_ / "growing.csv", houses(1200, 0, 3));
  const auto follow = [&](const std::string& store) {
    Args args = learn(store);
    *std::find(args.begin(), args.end(), path("a.csv")) = path("growing.csv");
    return args +
           Args{"--follow", "--follow-rows", "400", "--follow-idle", "0.1", "--commit-every", "5"};
  };
  const boost::json::object whole = succeed(follow("whole"));
  EXPECT_EQ(whole.at("matrix").as_array().size(), 4U);
  EXPECT_GT(whole.at("r2").as_double(), 0.9);
  for (int i = 0; i < 3; ++i) kill_in(follow("killed"), "killed");
  const boost::json::object resumed = succeed(follow("killed"));
  EXPECT_EQ(resumed.at("state_digest"), whole.at("state_digest"));
  EXPECT_EQ(resumed.at("matrix"), whole.at("matrix"));
  EXPECT_EQ(resumed.at("rmse"), whole.at("rmse"));

  // Another file is one experience more; progress is told as R squared.
  const Finished more = run({"train", "--store", path("whole"), "--follow", "--dataset",
                             path("b.csv"), "--follow-idle", "0.1", "--threads", "1"});
  EXPECT_EQ(more.code, 0) << more.err;
  EXPECT_THAT(more.err, HasSubstr("experience 4: r2 "));
  const boost::json::object eval = succeed({"eval", "--store", path("whole")});
  EXPECT_EQ(eval.at("rmse").at("price").as_array().size(), 4U);
}

TEST_F(NumbersTest, WhatNeedsClassesIsRefusedBeforeAStoreIsMade) {
  const auto refused = [&](const Args& args, int code, const Args& parts) {
    expect_refused(args, code, parts);
    EXPECT_FALSE(fs::exists(folder_ / "none"));
  };
  refused(learn("none", "price", "gdumb"), 2, {"strategy gdumb", "task regression"});
  refused(learn("none") + Args{"--buffer", "greedy"}, 2, {"buffer greedy", "task regression"});
  refused(learn("none", "price", "er", "split"), 2, {"split", "task regression"});
  refused(learn("none") + Args{"--label-column", "rent"}, 2, {"label_column", "task regression"});
  refused(learn("none", "price", "lwf") + Args{"--lwf-temperature", "3"}, 2,
          {"--lwf-temperature", "--task classification"});
  refused(learn("none", "cost"), 3, {"cost", "a.csv"});
}

}  // namespace
}  // namespace perennial::cli
