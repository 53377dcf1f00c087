// SPDX-License-Identifier: Apache-2.0
// Replay memories keep what they promise; the losses made of them are the papers'.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/mse_loss.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "continual/strategies/strategy_driver.h"
#include "model/dense_optimizer.h"
#include "strategies/herding.h"
#include "strategies/replay_buffer.h"

namespace perennial::continual {
namespace {

const Preprocessing kPixels{1, 100, 50};

// Examples whose feature is their number, so that a memory's content can be read off.
Examples numbered(std::int64_t begin, const std::vector<std::int64_t>& labels) {
  Examples examples;
  const auto n = static_cast<std::int64_t>(labels.size());
  examples.x = torch::arange(begin, begin + n).to(at::kFloat).view({n, 1});
  examples.y = torch::tensor(labels, at::kLong);
  return examples;
}

std::vector<std::int64_t> contents(const ReplayBuffer& buffer) {
  const torch::Tensor x = buffer.all(kPixels).x.to(at::kLong).contiguous();
  const std::int64_t* data = x.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> numbers(data, data + x.numel());
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

std::vector<std::int64_t> class_counts(const ReplayBuffer& buffer, std::int64_t classes) {
  const torch::Tensor counts = buffer.all(kPixels).y.bincount({}, classes);
  const std::int64_t* data = counts.const_data_ptr<std::int64_t>();
  return {data, data + classes};
}

TEST(ReplayBuffer, AReservoirIsAUniformSample) {
  // 3000 reservoirs of 5 out of 20, filled by batches of 3: each example is in a quarter of them.
  std::vector<int> kept(20);
  for (std::int64_t seed = 0; seed < 3000; ++seed) {
    ReplayBuffer buffer(BufferKind::reservoir, 5, 1, seed);
    for (std::int64_t begin = 0; begin < 20; begin += 3) {
      const std::size_t n = std::min<std::size_t>(3, static_cast<std::size_t>(20 - begin));
      buffer.add(numbered(begin, std::vector<std::int64_t>(n, 0)), kPixels);
    }
    for (const std::int64_t number : contents(buffer)) ++kept[static_cast<std::size_t>(number)];
  }
  double chi = 0;
  for (const int count : kept) chi += (count - 750.0) * (count - 750.0) / (750.0 * 0.75);
  EXPECT_LT(chi, 43.8);  // 99.9% quantile of chi-squared with 19 degrees of freedom
}

TEST(ReplayBuffer, ItsStateContinuesItsChoices) {
  for (const auto& [kind, name] : enum_names(BufferKind{})) {
    SCOPED_TRACE(name);
    const auto labels = [](std::int64_t begin) {
      return std::vector<std::int64_t>{begin % 3, (begin / 2) % 3, begin / 30 % 3};
    };
    ReplayBuffer whole(kind, 9, 3, 5), part(kind, 9, 3, 5);
    std::int64_t begin = 0;
    for (; begin < 45; begin += 3) {
      whole.add(numbered(begin, labels(begin)), kPixels);
      part.add(numbered(begin, labels(begin)), kPixels);
    }
    whole.sample(4, kPixels);
    part.sample(4, kPixels);
    // Through its state into a new one.
    struct Copier : StateVisitor {
      void tensor(const std::string& entry, torch::Tensor& value) override {
        saving ? void(tensors[entry] = value.defined() ? value.clone() : value)
               : void(value = tensors.at(entry));
      }
      void integer(const std::string& entry, std::int64_t& value) override {
        saving ? void(integers[entry] = value) : void(value = integers.at(entry));
      }
      bool saving = true;
      std::map<std::string, torch::Tensor> tensors;
      std::map<std::string, std::int64_t> integers;
    } copier;
    part.visit(copier, "memory");
    copier.saving = false;
    ReplayBuffer again(kind, 9, 3, 5);
    again.visit(copier, "memory");
    for (; begin < 90; begin += 3) {
      whole.add(numbered(begin, labels(begin)), kPixels);
      again.add(numbered(begin, labels(begin)), kPixels);
    }
    EXPECT_EQ(again.seen(), 90);
    EXPECT_EQ(contents(again), contents(whole));
    EXPECT_TRUE(torch::equal(again.sample(4, kPixels).x, whole.sample(4, kPixels).x));
  }
}

TEST(ReplayBuffer, BalancedOnesAreBalanced) {
  // 90 of class 0, then 6 of class 1, then 30 of class 2.
  const auto fill = [](BufferKind kind) {
    ReplayBuffer buffer(kind, 12, 3, 1);
    std::int64_t number = 0;
    for (const auto& [label, count] : {std::pair{0, 90}, std::pair{1, 6}, std::pair{2, 30}}) {
      for (int i = 0; i < count; ++i) buffer.add(numbered(number++, {label}), kPixels);
    }
    return class_counts(buffer, 3);
  };
  EXPECT_EQ(fill(BufferKind::class_balanced), (std::vector<std::int64_t>{4, 4, 4}));
  EXPECT_EQ(fill(BufferKind::greedy), (std::vector<std::int64_t>{4, 4, 4}));
  EXPECT_EQ(fill(BufferKind::ring), (std::vector<std::int64_t>{4, 4, 4}));
  EXPECT_GT(fill(BufferKind::reservoir)[0], 6);
}

TEST(ReplayBuffer, ARareClassIsKeptWhole) {
  ReplayBuffer buffer(BufferKind::class_balanced, 20, 3, 1);
  std::int64_t number = 0;
  for (int i = 0; i < 300; ++i) {
    buffer.add(numbered(number++, {i % 100 == 50 ? 2 : i % 2}), kPixels);
  }
  EXPECT_EQ(class_counts(buffer, 3)[2], 3);
}

TEST(ReplayBuffer, ARingKeepsTheNewestOfEachClass) {
  ReplayBuffer buffer(BufferKind::ring, 7, 3, 1);  // two a class
  buffer.add(numbered(0, {0, 1, 0, 0, 1, 0, 0}), kPixels);
  EXPECT_EQ(contents(buffer), (std::vector<std::int64_t>{1, 4, 5, 6}));
  EXPECT_EQ(buffer.sample(100, kPixels).y.numel(), 4);
}

TEST(ReplayBuffer, SamplesWithoutRepetitionAndUniformly) {
  ReplayBuffer buffer(BufferKind::reservoir, 10, 1, 3);
  buffer.add(numbered(0, std::vector<std::int64_t>(10, 0)), kPixels);
  std::vector<int> drawn(10);
  for (int i = 0; i < 2000; ++i) {
    const torch::Tensor x = buffer.sample(3, kPixels).x.to(at::kLong);
    std::set<std::int64_t> distinct;
    for (std::int64_t j = 0; j < 3; ++j) distinct.insert(x[j].item<std::int64_t>());
    ASSERT_EQ(distinct.size(), 3U);
    for (const std::int64_t number : distinct) ++drawn[static_cast<std::size_t>(number)];
  }
  double chi = 0;
  for (const int count : drawn) chi += (count - 600.0) * (count - 600.0) / (600.0 * 0.7);
  EXPECT_LT(chi, 27.9);  // 99.9% quantile with 9 degrees of freedom
}

TEST(ReplayBuffer, DrawsFromEarlierExperiencesWhereItHasSome) {
  ReplayBuffer buffer(BufferKind::ring, 8, 2, 3);
  buffer.add(numbered(0, {0, 1, 0}), kPixels, 0);
  EXPECT_EQ(buffer.sample(10, kPixels, 0).y.numel(), 3);
  EXPECT_EQ(buffer.sample(10, kPixels, 1).y.numel(), 3);
  buffer.add(numbered(3, {1, 1}), kPixels, 1);
  EXPECT_EQ(buffer.sample(10, kPixels, 2).y.numel(), 5);
  const torch::Tensor earlier = buffer.sample(10, kPixels, 1).x.flatten();
  EXPECT_TRUE(torch::equal(std::get<0>(earlier.sort()), torch::tensor({0.F, 1.F, 2.F})))
      << ::testing::Message() << earlier.numel();
}

TEST(ReplayBuffer, BytesAreKeptAsBytesAndComeBackToTheBit) {
  const Preprocessing preprocessing{3, 72.9, 90.02};
  const torch::Tensor bytes = torch::tensor({0, 1, 2, 127, 254, 255}, at::kByte).view({2, 3});
  ReplayBuffer buffer(BufferKind::reservoir, 4, 1, 1);
  const torch::Tensor x = preprocessing.apply(bytes);
  buffer.add({x, torch::zeros({2}, at::kLong), {}}, preprocessing);
  EXPECT_TRUE(torch::equal(buffer.all(preprocessing).x, x));
  EXPECT_EQ(buffer.bytes(), 4 * 3 + 4 * 8);
  const torch::Tensor odd = torch::full({1, 3}, 0.1234567F);
  buffer.add({odd, torch::zeros({1}, at::kLong), {}}, preprocessing);
  EXPECT_EQ(buffer.bytes(), 4 * 3 * 4 + 4 * 8);
  EXPECT_TRUE(torch::equal(buffer.all(preprocessing).x, torch::cat({x, odd})));
}

TEST(Replay, DerDistilsTheLogitsThatWereStored) {
  Driver driver(mlp_config("der++", [](RunConfig& c) {
    c.train.strategy_options.set("der_alpha", 0.3);
    c.train.strategy_options.set("der_beta", 0.7);
    c.train.strategy_options.set("replay_batch", 100);  // all that the memory has
  }));
  const Batch first = driver.stream.train_batch(0, 0, 0, 16, 1);
  const torch::Tensor stored = driver.model->train_forward(first.x).detach();
  driver.step(0, 0);
  const Batch batch = driver.stream.train_batch(0, 0, 1, 16, 1);
  TrainingBatch rows{batch.x, batch.y, 16};
  StrategyContext context = driver.context(0);
  driver.strategy->before_step(context, rows);
  ASSERT_EQ(rows.rows(), 48);
  rows.outputs = driver.model->train_forward(rows.x);
  const torch::Tensor logits = driver.model->train_forward(first.x);
  const torch::Tensor expected =
      at::cross_entropy_loss(driver.model->train_forward(batch.x), batch.y) +
      0.3 * at::mse_loss(logits, stored) + 0.7 * at::cross_entropy_loss(logits, first.y);
  EXPECT_NEAR(step_loss(*driver.strategy, context, rows).item<double>(), expected.item<double>(),
              1e-5);
  EXPECT_GT(at::mse_loss(logits, stored).item<double>(), 1e-4);
}

TEST(Replay, FilledAfterAnExperienceItHoldsLogitsOfTheTrainedModel) {
  Driver driver(mlp_config("der", [](RunConfig& c) {
    c.train.strategy_options.set("memory_fill", "experience");
    c.model.dropout = 0.3;
  }));
  StrategyContext first = driver.context(0);
  for (std::int64_t step = 0; step < 3; ++step) driver.step(0, step);
  EXPECT_EQ(StateMap(*driver.strategy).tensors.at("der/x").defined(), false);
  driver.strategy->after_experience(first);
  const StateMap state(*driver.strategy);
  const torch::Tensor x = state.tensors.at("der/x"), y = state.tensors.at("der/y");
  ASSERT_EQ(x.size(0), 24);
  // Of 50 examples, which the pixels tell apart.
  std::set<std::string> distinct;
  for (std::int64_t i = 0; i < 24; ++i) {
    distinct.emplace(x[i].const_data_ptr<std::uint8_t>(), x[i].const_data_ptr<std::uint8_t>() + 12);
  }
  EXPECT_EQ(distinct.size(), 24U);
  EXPECT_LT(y.max().item<std::int64_t>(), 2);
  EXPECT_TRUE(torch::allclose(driver.model->test_forward(driver.stream.preprocessing().apply(x)),
                              state.tensors.at("der/logits"), 1e-5, 1e-6));
  TrainingBatch rows{driver.stream.train_batch(1, 0, 0, 16, 1).x,
                     driver.stream.train_batch(1, 0, 0, 16, 1).y, 16};
  StrategyContext second = driver.context(1);
  driver.strategy->before_step(second, rows);
  EXPECT_EQ(rows.rows(), 32);
}

TEST(Replay, ErAceKeepsNewClassesAmongThemselves) {
  Driver driver(mlp_config(
      "er_ace", [](RunConfig& c) { c.train.strategy_options.set("replay_batch", 100); }));
  driver.step(0, 0);
  const Batch first = driver.stream.train_batch(0, 0, 0, 16, 1);
  const Batch batch = driver.stream.train_batch(1, 0, 0, 16, 1);  // classes 2 and 3
  TrainingBatch rows{batch.x, batch.y, 16};
  StrategyContext context = driver.context(1);
  driver.strategy->before_step(context, rows);
  rows.outputs = driver.model->train_forward(rows.x);
  const torch::Tensor expected =
      at::cross_entropy_loss(driver.model->train_forward(batch.x).narrow(1, 2, 2), batch.y - 2) +
      at::cross_entropy_loss(driver.model->train_forward(first.x), first.y);
  EXPECT_NEAR(step_loss(*driver.strategy, context, rows).item<double>(), expected.item<double>(),
              1e-5);
}

TEST(Replay, GdumbIsANewModelTrainedOnItsMemory) {
  Driver driver(mlp_config("gdumb"));
  const torch::Tensor initial = driver.values();
  ReplayBuffer memory(BufferKind::greedy, 24, kClasses, 1);
  StrategyContext context = driver.context(0);
  for (std::int64_t step = 0; step < 3; ++step) {
    driver.step(0, step);
    const Batch batch = driver.stream.train_batch(0, 0, step, 16, 1);
    memory.add({batch.x, batch.y, {}}, driver.stream.preprocessing());
  }
  EXPECT_TRUE(torch::equal(driver.values(), initial));
  driver.strategy->after_experience(context);

  Driver other(driver.config);
  const Examples examples = memory.all(driver.stream.preprocessing());
  DenseOptimizer optimizer(driver.config.train);
  optimizer.set_parameters(other.model->trainable());
  for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
    std::vector<std::uint32_t> order(24);
    kernels::shuffled_indices(1, random_lane(LaneUse::memory_order, 0, epoch), order);
    for (std::size_t begin = 0; begin < 24; begin += 16) {
      std::vector<std::int64_t> rows(
          order.begin() + static_cast<std::ptrdiff_t>(begin),
          order.begin() + std::min<std::ptrdiff_t>(24, static_cast<std::ptrdiff_t>(begin) + 16));
      const torch::Tensor some = torch::tensor(rows, at::kLong);
      optimizer.zero_grad();
      at::cross_entropy_loss(other.model->train_forward(examples.x.index_select(0, some)),
                             examples.y.index_select(0, some))
          .backward();
      optimizer.step();
    }
  }
  EXPECT_TRUE(torch::equal(driver.values(), other.values()));
  EXPECT_FALSE(torch::equal(driver.values(), initial));
}

TEST(Herding, EachChoiceBringsTheMeanNearest) {
  torch::Tensor f = torch::empty({40, 5});
  kernels::fill_normal(9, 0, 0, 0, 1, {f.mutable_data_ptr<float>(), 200});
  f[7].copy_(f[3]);  // a tie
  const std::vector<std::int64_t> chosen = herd(f, 15);
  ASSERT_EQ(chosen.size(), 15U);
  const torch::Tensor exact = f.to(at::kDouble), mean = exact.mean(0);
  torch::Tensor sum = torch::zeros({5}, at::kDouble);
  std::set<std::int64_t> taken;
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    std::int64_t best = -1;
    double nearest = 0;
    for (std::int64_t i = 0; i < 40; ++i) {
      if (taken.contains(i)) continue;
      const double distance =
          (mean - (sum + exact[i]) / static_cast<double>(k + 1)).norm().item<double>();
      if (best < 0 || distance < nearest - 1e-12) {
        best = i;
        nearest = distance;
      }
    }
    EXPECT_EQ(chosen[k], best);
    taken.insert(chosen[k]);
    sum += exact[chosen[k]];
  }
  EXPECT_EQ(herd(f, 100).size(), 40U);
}

TEST(Replay, IcarlAnswersByTheNearestMeanOfItsExemplars) {
  Driver driver(mlp_config("icarl", [](RunConfig& c) { c.model.hidden = 32; }));
  StrategyContext first = driver.context(0), second = driver.context(1);
  const Batch test = driver.stream.test_batch(0, 0, 20);
  EXPECT_FALSE(driver.strategy->predict(*driver.model, test.x, {}));
  driver.strategy->before_experience(first);
  for (std::int64_t step = 0; step < 3; ++step) driver.step(0, step);
  driver.strategy->after_experience(first);
  EXPECT_EQ(StateMap(*driver.strategy).tensors["icarl/held"].sum().item<std::int64_t>(), 24);
  const torch::Tensor early = StateMap(*driver.strategy).tensors["icarl/x"].clone();
  driver.strategy->before_experience(second);
  for (std::int64_t step = 0; step < 3; ++step) driver.step(1, step);
  driver.strategy->after_experience(second);

  const StateMap state(*driver.strategy);
  const torch::Tensor held = state.tensors.at("icarl/held");
  EXPECT_TRUE(torch::equal(held, torch::tensor({6, 6, 6, 6}, at::kLong)));
  // Older classes keep the first of what they had: 12 each before.
  const torch::Tensor x = state.tensors.at("icarl/x"), y = state.tensors.at("icarl/y");
  EXPECT_TRUE(torch::equal(x.narrow(0, 0, 6), early.narrow(0, 0, 6)));
  EXPECT_TRUE(torch::equal(x.narrow(0, 6, 6), early.narrow(0, 12, 6)));
  const auto features = [&](const torch::Tensor& rows) {
    std::vector<LayerUse> uses;
    driver.model->traced_forward(rows, uses);
    const torch::Tensor f = uses.back().input.detach();
    return f / f.norm(2, {1}, true);
  };
  std::vector<torch::Tensor> means;
  for (std::int64_t c = 0; c < kClasses; ++c) {
    EXPECT_TRUE(y.narrow(0, 6 * c, 6).eq(c).all().item<bool>());
    const torch::Tensor mean =
        features(driver.stream.preprocessing().apply(x.narrow(0, 6 * c, 6))).mean(0);
    means.push_back(mean / mean.norm());
  }
  const torch::Tensor distance = torch::cdist(features(test.x), torch::stack(means));
  const Prediction answer = *driver.strategy->predict(*driver.model, test.x, {});
  // Within rounding of the distances, which are at most 2.
  const torch::Tensor chosen = distance.gather(1, answer.answers.argmax(1).unsqueeze(1)).squeeze(1);
  EXPECT_LT((chosen - distance.amin(1)).max().item<double>(), 1e-3);
  EXPECT_GT((distance.amax(1) - distance.amin(1)).min().item<double>(), 0.01);
}

}  // namespace
}  // namespace perennial::continual
