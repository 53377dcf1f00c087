// SPDX-License-Identifier: Apache-2.0
// Scenarios (task-, domain-, class-incremental) and blurred boundaries.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>

#include <cmath>
#include <map>
#include <set>

#include "continual/data/data_files.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kScenarioClasses = 6;

// Example i is the one feature i, so that it can be told from any other; labels go round.
Dataset numbered_part(std::int64_t size) {
  Dataset data;
  data.x = torch::arange(size, torch::kFloat).view({size, 1});
  data.y = torch::arange(size).remainder(kScenarioClasses);
  for (std::int64_t c = 0; c < kScenarioClasses; ++c)
    data.label_names.push_back(std::string("c").append(std::to_string(c)));
  return data;
}

Stream numbered_stream(StreamOptions options, std::int64_t train = 60) {
  options.normalize = Normalization::none;
  return {options, TrainTest{numbered_part(train), numbered_part(24), "made"}};
}

Batch whole_pass(const Stream& stream, std::int64_t experience, std::int64_t epoch = 0,
                 std::int64_t batch = 7) {
  std::vector<torch::Tensor> x, y, e;
  for (std::int64_t step = 0; step < stream.steps_per_epoch(experience, batch); ++step) {
    const Batch part = stream.train_batch(experience, epoch, step, batch, 1);
    x.push_back(part.x);
    y.push_back(part.y);
    e.push_back(part.experience);
  }
  return {torch::cat(x), torch::cat(y), torch::cat(e)};
}

TEST(Scenario, AutomaticIsClassForSplitAndDomainForOthers) {
  const Stream split = numbered_stream({.stream = StreamKind::split, .experiences = 3});
  EXPECT_EQ(split.classes(), 6);
  EXPECT_FALSE(split.tasks_known());
  EXPECT_EQ(split.classes_of(1), (std::vector<std::int64_t>{2, 3}));
  const Stream permuted = numbered_stream({.experiences = 3});
  EXPECT_EQ(permuted.classes(), 6);
  EXPECT_EQ(permuted.classes_of(1).size(), 6U);
}

TEST(Scenario, DomainSplitNumbersClassesWithinTheirExperience) {
  const Stream stream = numbered_stream(
      {.stream = StreamKind::split, .experiences = 3, .scenario = Scenario::domain_incremental});
  EXPECT_EQ(stream.classes(), 2);
  EXPECT_EQ(stream.label_names(), (std::vector<std::string>{"c0 or c2 or c4", "c1 or c3 or c5"}));
  for (std::int64_t e = 0; e < 3; ++e) {
    EXPECT_EQ(stream.classes_of(e), (std::vector<std::int64_t>{0, 1}));
    for (const Batch& batch :
         {whole_pass(stream, e), stream.test_batch(e, 0, stream.test_size(e))}) {
      const torch::Tensor own = batch.x.select(1, 0).to(torch::kLong).remainder(kScenarioClasses);
      EXPECT_TRUE(at::equal(batch.y, own - 2 * e));
      EXPECT_TRUE(batch.experience.eq(e).all().item<bool>());
    }
  }
}

TEST(Scenario, PermutedCanHaveClassesOfItsOwnInEveryExperience) {
  const Stream stream =
      numbered_stream({.experiences = 3, .scenario = Scenario::class_incremental});
  EXPECT_EQ(stream.classes(), 18);
  EXPECT_EQ(stream.label_names()[7], "c1 (2)");
  EXPECT_EQ(stream.classes_of(2).front(), 12);
  EXPECT_EQ(stream.classes_of(2).back(), 17);
  const Batch batch = stream.test_batch(2, 0, 24);
  EXPECT_EQ(batch.y.min().item<int>(), 12);
  EXPECT_EQ(batch.y.max().item<int>(), 17);
  const Batch joint = stream.joint().train_batch(0, 0, 0, 180, 1);
  EXPECT_TRUE(at::equal(joint.y.floor_divide(6), joint.experience));
}

TEST(Scenario, TasksRestrictAnswersToTheClassesOfEachExamplesExperience) {
  const Stream stream = numbered_stream(
      {.stream = StreamKind::split, .experiences = 3, .scenario = Scenario::task_incremental});
  EXPECT_TRUE(stream.tasks_known());
  EXPECT_EQ(stream.classes(), 6);
  const torch::Tensor scores = torch::arange(12, torch::kFloat).view({2, 6});
  const torch::Tensor restricted =
      stream.task().restrict_answers(scores, torch::tensor(std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(restricted[0].argmax().item<int>(), 3);
  EXPECT_EQ(restricted[1].argmax().item<int>(), 1);
  for (const int c : {0, 1, 4, 5}) EXPECT_TRUE(std::isinf(restricted[0][c].item<float>()));
  EXPECT_EQ(restricted[0][2].item<float>(), 2);
  // The loss ignores what cannot be the answer, to the bit of its gradient.
  torch::Tensor logits = torch::arange(6, torch::kFloat).view({1, 6}).clone().requires_grad_();
  const torch::Tensor one = torch::tensor(std::vector<std::int64_t>{1});
  stream.task().loss(logits, torch::tensor(std::vector<std::int64_t>{2})).backward();
  for (const int c : {0, 1, 4, 5}) EXPECT_EQ(logits.grad()[0][c].item<float>(), 0);
  EXPECT_LT(logits.grad()[0][2].item<float>(), 0);
  EXPECT_TRUE(torch::isfinite(logits.grad()).all().item<bool>());
  // Nothing is changed where tasks are unknown.
  const Stream unknown = numbered_stream({.stream = StreamKind::split, .experiences = 3});
  EXPECT_TRUE(unknown.task().restrict_answers(scores, one).is_same(scores));
}

// Says class 5 first, then 4, ...: right only where answers are restricted.
class LastClassFirst : public Model {
 public:
  torch::Tensor train_forward(const torch::Tensor& x) override { return x; }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t>) override {
    return {torch::arange(6, torch::kFloat).view({1, 6}).expand({x.size(0), 6}) / 15,
            torch::full({x.size(0)}, -1, torch::kLong)};
  }
  std::vector<std::pair<std::string, torch::Tensor>> trainable() override { return {}; }
  std::int64_t dense_parameters() const override { return 0; }
  void add_to_commit(storage::CommitRequest&) override {}
  void committed() override {}
  void commit_failed() override {}
};

TEST(Scenario, EvaluationKnowsTheTaskOnlyWhenItIsTaskIncremental) {
  LastClassFirst model;
  StreamOptions options{.stream = StreamKind::split, .experiences = 3};
  EXPECT_EQ(evaluate(model, numbered_stream(options), false).scores,
            (std::vector<double>{0, 0, 0.5}));
  options.scenario = Scenario::task_incremental;
  EXPECT_EQ(evaluate(model, numbered_stream(options), false).scores,
            (std::vector<double>{0.5, 0.5, 0.5}));
}

TEST(Blur, MixesNeighboursLinearlyAndShowsEveryExampleOnce) {
  const Stream hard = numbered_stream({.stream = StreamKind::split, .experiences = 3}, 6000);
  const Stream soft =
      numbered_stream({.stream = StreamKind::split, .experiences = 3, .blur = 0.5}, 6000);
  std::multiset<float> seen;
  for (std::int64_t e = 0; e < 3; ++e) {
    const Batch batch = whole_pass(soft, e);
    ASSERT_EQ(batch.x.size(0), 2000);
    for (std::int64_t i = 0; i < 2000; ++i) seen.insert(batch.x[i][0].item<float>());
    // The middle half is untouched.
    const Batch before = whole_pass(hard, e);
    EXPECT_TRUE(at::equal(batch.x.slice(0, 500, 1500), before.x.slice(0, 500, 1500)));
    const auto foreign = [&](std::int64_t begin, std::int64_t end) {
      return batch.experience.slice(0, begin, end).ne(e).to(torch::kDouble).mean().item<double>();
    };
    // A share of one half at the boundary, one quarter half-way, none where it begins.
    EXPECT_NEAR(foreign(1900, 2000), e == 2 ? 0 : 0.45, e == 2 ? 0 : 0.15);
    EXPECT_NEAR(foreign(1700, 1800), e == 2 ? 0 : 0.25, e == 2 ? 0 : 0.13);
    EXPECT_LE(foreign(1500, 1550), 0.12);
    EXPECT_NEAR(foreign(0, 100), e == 0 ? 0 : 0.45, e == 0 ? 0 : 0.15);
    // Labels go with the examples.
    EXPECT_TRUE(
        at::equal(batch.y, batch.x.select(1, 0).to(torch::kLong).remainder(kScenarioClasses)));
  }
  EXPECT_EQ(seen.size(), 6000U);
  EXPECT_EQ(std::set<float>(seen.begin(), seen.end()).size(), 6000U);
}

TEST(Blur, IsAFunctionOfThePositionAndItsSeedAndZeroIsHard) {
  const StreamOptions options{.stream = StreamKind::split, .experiences = 3, .blur = 1};
  const Stream a = numbered_stream(options, 600), b = numbered_stream(options, 600);
  whole_pass(b, 0, 2);
  for (std::int64_t step : {0, 5, 11}) {
    EXPECT_TRUE(at::equal(a.train_batch(1, 1, step, 16, 9).x, b.train_batch(1, 1, step, 16, 9).x));
  }
  StreamOptions other = options;
  other.stream_seed = 2;
  EXPECT_FALSE(at::equal(whole_pass(numbered_stream(other, 600), 1).x, whole_pass(a, 1).x));
  // Test sets are never mixed.
  const Batch test = a.test_batch(1, 0, a.test_size(1));
  EXPECT_TRUE(test.experience.eq(1).all().item<bool>());
  EXPECT_THROW(StreamOptions({.stream = StreamKind::single, .blur = 0.5}).validate(),
               InvalidOptions);
  EXPECT_THROW(StreamOptions({.blur = 1.5}).validate(), InvalidOptions);
}

TEST(Blur, TouchesOnlyTheEndsThatMeet) {
  const Stream stream = numbered_stream({.experiences = 2, .blur = 0.5}, 60);
  const Batch batch = whole_pass(stream, 0);
  EXPECT_GT(batch.experience.sum().item<int>(), 0);
  EXPECT_LE(batch.experience.slice(0, 0, 45).sum().item<int>(), 0);
}

}  // namespace
}  // namespace perennial::continual
