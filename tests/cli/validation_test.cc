// SPDX-License-Identifier: Apache-2.0
// The built program on held-out training examples: train --validation-share, bench --tune. Nothing
// of either may depend on the test part.
#include "learning_fixture.h"

namespace perennial::cli {
namespace {

class ValidationTest : public LearningTest {
 protected:
  // The same training part, and a test part of noise.
  ValidationTest() {
    fs::copy(folder_ / "data", folder_ / "noise");
    Images noise = make_images(kTest, 3);
    std::mt19937 random(4);
    for (char& pixel : noise.pixels) pixel = static_cast<char>(random());
    write_file(folder_ / "noise/t10k-images-idx3-ubyte", idx({kTest, kSide, kSide}, noise.pixels));
  }
};

TEST_F(ValidationTest, TrainTestsOnWhatItHeldOut) {
  const auto run = [&](const std::string& store, const std::string& data, const Args& more) {
    return succeed(Args{"train", "--store", path(store), "--dataset", path(data), "--strategy",
                        "naive", "--model", "mlp", "--experiences", "2", "--threads", "1"} +
                   more);
  };
  const Args held = {"--validation-share", "0.2"};
  const json::object here = run("a", "data", held), there = run("b", "noise", held);
  EXPECT_EQ(here.at("matrix"), there.at("matrix")) << "the test part was read";
  EXPECT_GT(here.at("acc").as_double(), 0.5);
  EXPECT_LT(run("c", "noise", {}).at("acc").as_double(), here.at("acc").as_double());
  // The store knows: eval has the same numbers, and the share belongs to the run.
  EXPECT_EQ(succeed({"eval", "--store", path("a"), "--threads", "1"}).at("acc"), here.at("acc"));
  expect_refused({"train", "--store", path("a"), "--dataset", path("data"), "--strategy", "naive",
                  "--model", "mlp", "--experiences", "2", "--validation-share", "0.3", "--quiet"},
                 2, {"validation_share"});
}

TEST_F(ValidationTest, BenchChoosesOnWhatItHeldOut) {
  const auto bench = [&](const std::string& data) {
    return Args{"bench",        "continual", "--protocol",  "rotated",
                "--dataset",    path(data),  "--seeds",     "1",
                "--strategies", "joint",     "--no-bounds", "--limit",
                "200",          "--tune",    "--out",       path("bench-" + data),
                "--jobs",       "2"};
  };
  const json::object here = succeed(bench("data")), there = succeed(bench("noise"));
  const auto row = [](const json::object& result, const char* rows) {
    EXPECT_EQ(result.at(rows).as_array().size(), 1U);
    return result.at(rows).as_array().at(0).as_object();
  };
  const json::object tuned = row(here, "tuned");
  for (const char* field : {"settings", "validation_acc", "edges", "trials"}) {
    EXPECT_EQ(tuned.at(field), row(there, "tuned").at(field)) << field << " of another test part";
  }
  EXPECT_NE(tuned.at("acc"), row(there, "tuned").at("acc"));
  const json::array& trials = tuned.at("trials").as_array();
  EXPECT_GE(trials.size(), 10U);
  double best = 0;
  for (const json::value& trial : trials) {
    best = std::max(best, trial.at("validation_acc").as_double());
  }
  EXPECT_EQ(tuned.at("validation_acc").as_double(), best);

  // Both tables, and what was chosen.
  const fs::path out = folder_ / "bench-data";
  const std::string page = read_file(out / "results.md");
  EXPECT_THAT(page, HasSubstr("## With the protocol's settings\n\n| strategy | acc |"));
  EXPECT_THAT(page, HasSubstr("## Each row at its own best\n\n| strategy | acc |"));
  EXPECT_THAT(page, HasSubstr("| on validation | chosen |"));
  EXPECT_THAT(read_file(out / "report.html"), HasSubstr("<h2>Each row at its own best</h2>"));
  EXPECT_THAT(read_file(out / "tuned.csv"), HasSubstr("joint,acc,"));

  // It goes on where it was: what is there is not repeated, what is gone is, to the same numbers.
  const fs::path kept = out / "trials/joint/adam-0.001-linear", gone = out / "tuned/joint/1";
  const auto written = fs::last_write_time(kept / "summary.json");
  EXPECT_TRUE(fs::exists(gone / "summary.json"));
  fs::remove_all(out / "trials/joint/sgd-0.03-constant");
  fs::remove_all(gone);
  const json::object again = row(succeed(bench("data")), "tuned");
  for (const char* field : {"settings", "validation_acc", "trials", "acc"}) {
    EXPECT_EQ(again.at(field), tuned.at(field)) << field;
  }
  EXPECT_EQ(fs::last_write_time(kept / "summary.json"), written);
}

}  // namespace
}  // namespace perennial::cli
