// SPDX-License-Identifier: Apache-2.0
// Stores as version 0.1 wrote them, kept in golden/, are read, answer and go on as they did there.
//
// All learnt tests/continual/data/tables/iris.csv.gz on one thread. A later version that changes
// what it writes adds stores of its own; it never replaces these.
#include <cmath>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

struct Golden {
  const char* name;
  const char* digest;    // of the state as it is kept
  const char* finished;  // of the run's end; null: the run had ended
};

std::ostream& operator<<(std::ostream& out, const Golden& golden) { return out << golden.name; }

class GoldenTest : public LearningTest, public ::testing::WithParamInterface<Golden> {
 protected:
  GoldenTest() {
    const fs::path kept = fs::path(PERENNIAL_GOLDEN_STORES) / GetParam().name;
    fs::copy(kept, folder_ / "store", fs::copy_options::recursive);
    predictions_ = read_file(kept / "predictions.csv");
    fs::remove(folder_ / "store" / "predictions.csv");
    for (const char* folder : {"stage", "views", "runs"}) {
      fs::create_directories(folder_ / "store" / folder);
    }
  }
  std::string predictions_;
};

// Rows, labels and generations as they are; confidences to a unit of their last digit, which
// another processor's sums may move.
void expect_same_answers(const std::string& answers, const std::string& kept) {
  std::istringstream ours(answers), theirs(kept);
  std::string our_line, their_line;
  for (int line = 0; std::getline(theirs, their_line); ++line) {
    ASSERT_TRUE(std::getline(ours, our_line)) << "at line " << line;
    std::istringstream our_cells(our_line), their_cells(their_line);
    std::string our_cell, their_cell;
    for (int cell = 0; std::getline(their_cells, their_cell, ','); ++cell) {
      ASSERT_TRUE(std::getline(our_cells, our_cell, ',')) << our_line;
      if (line > 0 && cell == 2) {
        EXPECT_NEAR(std::stod(our_cell), std::stod(their_cell), 1.5e-4) << our_line;
      } else {
        EXPECT_EQ(our_cell, their_cell) << our_line << " against " << their_line;
      }
    }
  }
  EXPECT_FALSE(std::getline(ours, our_line)) << our_line;
}

TEST_P(GoldenTest, AnswersAsItDid) {
  EXPECT_EQ(commits("store").as_array().back().at("state_digest"), json::value(GetParam().digest));
  EXPECT_EQ(run({"verify", "--store", path("store")}).code, 0);
  const Args predict = {"predict", "--store", path("store"), "--input", PERENNIAL_IRIS};
  const Finished answers = run(predict);
  ASSERT_EQ(answers.code, 0) << answers.err;
  expect_same_answers(answers.out, predictions_);
  // The state is still the one that was kept: nothing of it is written anew in another form.
  succeed({"snapshot", "--store", path("store"), "--name", "looked-at"});
  EXPECT_EQ(commits("store").as_array().back().at("state_digest"), json::value(GetParam().digest));
}

TEST_P(GoldenTest, GoesOnToTheBitsThatItHadThen) {
  if (GetParam().finished == nullptr) GTEST_SKIP() << "the run had ended";
  const Finished finished = run({"train", "--store", path("store"), "--dataset", PERENNIAL_IRIS,
                                 "--threads", "1", "--exact", "--quiet", "--json"});
  if (finished.err.find("processor") != std::string::npos) {
    GTEST_SKIP() << "bits may differ here: " << finished.err;
  }
  ASSERT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(finished.object().at("state_digest"), json::value(GetParam().finished));
}

INSTANTIATE_TEST_SUITE_P(
    Version01, GoldenTest,
    ::testing::Values(
        // Batch norm, analytic gate; two frozen generations, and one with its moments.
        Golden{"isolated-open", "91b4d037eefff98cda39481d1289fb19",
               "b608c937a9ed4ac1e8c85645e96c7e67"},
        // One router for three generations, dense layers around, dropout, bf16 experts.
        Golden{"shared-open", "47dd92cd9bf55846d25bd8ef24ab73bd",
               "22587988289be01386d0f1e1b9a74702"},
        Golden{"mlp-replay", "f9ec215143daca50a147b4f224e144ca",
               "7e76d128600b281ae7ef25d5f9e86f5b"},
        Golden{"autoencoder", "be2cf7ee47b6e6db1a25fe3751c34243", nullptr},
        // Generation 1 of three; gated experts of two neurons.
        Golden{"unlearned", "d50e96c487ec2d8589c906af931d98eb", nullptr},
        Golden{"columns-head", "1d924ff6b499a37e6f639772a4da2835", nullptr}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace perennial::cli
