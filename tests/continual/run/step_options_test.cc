// SPDX-License-Identifier: Apache-2.0
// How a step is taken: in parts, clipped, warmed up, with decay, with rates for groups. Each is
// what it says, and a run with it resumes bit for bit.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "continual/run/learner_testing.h"

namespace perennial::continual {
namespace {

RunConfig step_config(ModelKind model, const std::function<void(RunConfig&)>& change) {
  return small_config({"step", [&](RunConfig& config) {
                         config.train.strategy = "naive";
                         config.model.model = model;
                         config.model.peer.query_norm = QueryNorm::layer;
                         change(config);
                       }});
}

class StepOptionsTest : public ::testing::TestWithParam<Case> {};

TEST_P(StepOptionsTest, ResumesBitForBit) {
  for (const ModelKind model : {ModelKind::mlp, ModelKind::peer}) {
    const RunConfig config = step_config(model, GetParam().change);
    const auto store = storage::make_memory_store();
    const RunResult result = expect_resumes(
        config, [&] { return make_stream(config); }, store.get());
    EXPECT_GT(result.matrix.at(3, 2), result.matrix.at(0, 2) + 0.2);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Options, StepOptionsTest,
    ::testing::Values(Case{"micro_batch", [](RunConfig& c) { c.train.micro_batch = 5; }},
                      Case{"micro_batch_of_replay",
                           [](RunConfig& c) {
                             c.train.micro_batch = 6;
                             c.train.strategy = "er";
                           }},
                      Case{"micro_batch_with_dropout",
                           [](RunConfig& c) {
                             c.train.micro_batch = 5;
                             c.model.dropout = 0.1;
                           }},
                      Case{"clip_norm", [](RunConfig& c) { c.train.clip_norm = 0.5; }},
                      Case{"warmup",
                           [](RunConfig& c) {
                             c.train.warmup = 4;
                             c.train.lr_schedule = LrSchedule::cosine;
                           }},
                      Case{"adamw",
                           [](RunConfig& c) {
                             c.train.optimizer = OptimizerKind::adamw;
                             c.train.weight_decay = 0.1;
                           }}),
    [](const auto& info) { return info.param.name; });

// What a model is after one step of 16 examples of the first experience.
struct Stepped {
  std::vector<std::pair<std::string, torch::Tensor>> dense;
  torch::Tensor u, v;  // of its experts, where it has any
};

Stepped after_steps(const RunConfig& config, int steps) {
  RunSettings settings;
  int polls = 0;
  settings.stop_requested = [&] { return ++polls >= steps; };
  Trainer trainer(config, make_stream(config), nullptr, settings);
  if (steps > 0) trainer.run();
  Stepped stepped;
  for (const auto& [name, tensor] : trainer.model().trainable()) {
    stepped.dense.emplace_back(name, tensor.detach().clone());
  }
  if (trainer.model().only_layer() == nullptr) return stepped;
  std::vector<std::int64_t> ids;
  for (std::int64_t row = 0; row < 6; ++row) {
    for (std::int64_t col = 0; col < 6; ++col) ids.push_back(row << 32 | col);
  }
  const ExpertValues values = trainer.model().only_layer()->pool().experts_at(ids);
  stepped.u = values.u.clone();
  stepped.v = values.v.clone();
  return stepped;
}

// The length of the way from one to the other, over dense parameters and experts.
double distance(const Stepped& a, const Stepped& b) {
  double squares = 0;
  const auto add = [&](const torch::Tensor& x, const torch::Tensor& y) {
    squares += (x.to(at::kDouble) - y.to(at::kDouble)).square().sum().item<double>();
  };
  for (std::size_t i = 0; i < a.dense.size(); ++i) add(a.dense[i].second, b.dense[i].second);
  if (a.u.defined()) {
    add(a.u, b.u);
    add(a.v, b.v);
  }
  return std::sqrt(squares);
}

void plain_sgd(RunConfig& config) { config.train.optimizer = OptimizerKind::sgd; }

// The forward and the loss of a row do not depend on the rows beside it, so experts, whose
// gradients add up row by row, keep their bits; sums over rows in dense layers are cut otherwise.
TEST(MicroBatch, TakesTheStepOfTheWholeBatch) {
  for (const ModelKind model : {ModelKind::mlp, ModelKind::peer}) {
    const auto stepped = [&](std::int64_t rows) {
      return after_steps(step_config(model,
                                     [&](RunConfig& c) {
                                       plain_sgd(c);
                                       c.train.micro_batch = rows;
                                     }),
                         1);
    };
    const Stepped whole = stepped(0);
    for (const std::int64_t rows : {1, 5, 16}) {
      const Stepped parts = stepped(rows);
      if (model == ModelKind::peer) {
        EXPECT_TRUE(at::equal(parts.u, whole.u));
        EXPECT_TRUE(at::equal(parts.v, whole.v));
      }
      for (std::size_t i = 0; i < whole.dense.size(); ++i) {
        EXPECT_TRUE(at::allclose(parts.dense[i].second, whole.dense[i].second, 1e-5, 1e-7))
            << whole.dense[i].first << " in parts of " << rows;
      }
    }
    EXPECT_GT(distance(whole, after_steps(step_config(model, plain_sgd), 0)), 1e-4);
  }
}

// With SGD a step goes lr times the gradient.
TEST(ClipNorm, BoundsTheStepOverAllParametersTogether) {
  constexpr double kLr = 0.01;  // of small_config
  for (const ModelKind model : {ModelKind::mlp, ModelKind::peer}) {
    const auto norm = [&](double most) {
      const RunConfig config = step_config(model, [&](RunConfig& c) {
        plain_sgd(c);
        c.train.clip_norm = most;
      });
      return distance(after_steps(config, 1), after_steps(config, 0)) / kLr;
    };
    const double whole = norm(0);
    EXPECT_NEAR(norm(whole / 4), whole / 4, 1e-3 * whole);
    EXPECT_NEAR(norm(whole * 4), whole, 1e-6 * whole);
  }
}

TEST(Warmup, RisesInEqualParts) {
  EXPECT_EQ(warmup_factor(0, 0), 1);
  EXPECT_DOUBLE_EQ(warmup_factor(0, 4), 0.25);
  EXPECT_DOUBLE_EQ(warmup_factor(2, 4), 0.75);
  EXPECT_EQ(warmup_factor(3, 4), 1);
  EXPECT_EQ(warmup_factor(100, 4), 1);
  for (const ModelKind model : {ModelKind::mlp, ModelKind::peer}) {
    const auto config = [&](std::int64_t warmup) {
      return step_config(model, [&](RunConfig& c) {
        plain_sgd(c);
        c.train.warmup = warmup;
      });
    };
    const Stepped start = after_steps(config(0), 0);
    const double whole = distance(after_steps(config(0), 1), start);
    EXPECT_NEAR(distance(after_steps(config(4), 1), start), whole / 4, 1e-3 * whole);
  }
}

TEST(RouterLr, IsTheRoutersAlone) {
  const auto config = [&](double rate) {
    return step_config(ModelKind::peer, [&](RunConfig& c) {
      plain_sgd(c);
      c.train.router_lr = rate;
    });
  };
  const Stepped start = after_steps(config(0), 0), plain = after_steps(config(0), 1),
                same = after_steps(config(0.01), 1), slow = after_steps(config(0.0025), 1);
  EXPECT_EQ(distance(plain, same), 0);
  EXPECT_TRUE(at::equal(slow.u, plain.u));
  for (std::size_t i = 0; i < start.dense.size(); ++i) {
    const torch::Tensor way = plain.dense[i].second - start.dense[i].second;
    EXPECT_TRUE(at::allclose(slow.dense[i].second - start.dense[i].second, way / 4, 1e-3, 1e-7))
        << start.dense[i].first;
  }
}

TEST(StepOptions, WhatCannotWorkIsRefused) {
  const auto refused = [](const std::string& word, ModelKind model,
                          const std::function<void(RunConfig&)>& change) {
    expect_invalid(step_config(model, change), word);
  };
  refused("weight_decay", ModelKind::mlp, [](RunConfig& c) { c.train.weight_decay = 0.1; });
  for (const std::string_view kind : {"gdumb", "packnet"}) {
    for (const auto& set : std::vector<std::function<void(TrainOptions&)>>{
             [](TrainOptions& t) { t.micro_batch = 4; }, [](TrainOptions& t) { t.clip_norm = 1; },
             [](TrainOptions& t) { t.warmup = 4; }}) {
      refused("strategy " + std::string(kind), ModelKind::mlp, [&](RunConfig& c) {
        c.train.strategy = kind;
        c.train.gate = GateChoice::oracle;
        if (kind == "gdumb") c.train.gate = GateChoice::automatic;
        set(c.train);
      });
    }
  }
  for (const char* kind : {"er_ace", "der", "der++", "lwf"}) {
    refused("the loss of strategy", ModelKind::mlp, [&](RunConfig& c) {
      c.train.strategy = kind;
      c.train.micro_batch = 4;
    });
  }
  refused("query_norm batch", ModelKind::peer, [](RunConfig& c) {
    c.model.peer.query_norm = QueryNorm::batch;
    c.train.micro_batch = 4;
  });
  refused("output_regularisation", ModelKind::peer, [](RunConfig& c) {
    c.train.strategy = "grow_freeze";
    c.model.peer.routing = Routing::shared;
    c.train.strategy_options.set("output_regularisation", 1);
    c.train.micro_batch = 4;
  });
  refused("growth drift", ModelKind::peer, [](RunConfig& c) {
    c.train.strategy = "grow_freeze";
    c.train.strategy_options.set("growth", "drift");
    c.train.warmup = 4;
  });
  refused("head analytic", ModelKind::peer, [](RunConfig& c) {
    c.model.head = HeadKind::analytic;
    c.train.clip_norm = 1;
  });
}

// What was learnt before there were these options keeps its configuration, and its digest.
TEST(StepOptions, AreLeftOutAtTheirDefaults) {
  const boost::json::object train = RunConfig().to_json().at("train").as_object();
  for (const char* field : {"micro_batch", "clip_norm", "warmup", "weight_decay", "router_lr"}) {
    EXPECT_FALSE(train.contains(field)) << field;
  }
}

// The place of an option is part of the stored bytes.
TEST(StepOptions, StandWhereTheyAlwaysStood) {
  RunConfig config;
  config.stream.validation_share = 0.1;
  config.stream.class_order = "random";
  config.stream.table.task = TaskKind::regression;
  config.stream.table.target_column = "y";
  config.stream.table.separator = Separator::tab;
  config.stream.table.encoding = "latin1";
  config.model.head_inputs = HeadInputs::columns;
  config.model.head_width = 7;
  config.train.micro_batch = 4;
  config.train.weight_decay = 0.1;
  config.train.clip_norm = 1;
  config.train.amp = Amp::bf16;
  config.train.router_lr = 0.1;
  config.train.warmup = 3;
  const boost::json::object stored = config.to_json();
  const auto expect_in_turn = [&](const char* section, const std::vector<std::string>& fields) {
    const boost::json::object& all = stored.at(section).as_object();
    auto at = all.find(fields.front());
    for (const std::string& field : fields) {
      ASSERT_NE(at, all.end());
      EXPECT_EQ(std::string(at->key()), field);
      ++at;
    }
  };
  expect_in_turn("stream", {"test_limit", "validation_share", "stream_seed", "class_order",
                            "normalize", "task", "target_column", "label_column", "header",
                            "separator", "encoding", "bad_rows"});
  expect_in_turn("model", {"head", "head_inputs", "head_width", "head_ridge"});
  expect_in_turn("train",
                 {"epochs", "batch", "micro_batch", "optimizer", "weight_decay", "clip_norm", "amp",
                  "lr", "router_lr", "expert_lr", "lr_schedule", "warmup", "expert_optimizer"});
}

}  // namespace
}  // namespace perennial::continual
