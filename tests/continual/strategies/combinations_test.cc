// SPDX-License-Identifier: Apache-2.0
// Random combinations of all options: what is refused is refused before anything starts, and what
// is not learns, stops, resumes and answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "continual/run/run_testing.h"
#include "continual/run/trainer_testing.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

// Combinations that are accepted and run. By hand more of them, the first ones the same:
//   PERENNIAL_COMBINATIONS=20000 continual_strategy_test --gtest_filter='Combinations.*'
std::uint64_t wanted_combinations() {
  const char* asked = std::getenv("PERENNIAL_COMBINATIONS");
  return asked == nullptr ? 1500 : std::stoull(asked);
}

// Values that a number is drawn from, the usual one first: few, small, and on both sides of what
// decides something. 32 examples of 12 features and 4 classes are learnt from.
const std::map<std::string, std::vector<double>, std::less<>>& values_to_draw() {
  static const std::map<std::string, std::vector<double>, std::less<>> all = {
      {"experiences", {2, 1, 3, 4}},
      {"angle_step", {0, 30, -45}},
      {"blur", {0, 0.5, 1}},
      {"cycle", {0, 1, 2}},
      {"limit", {0, 1, 7, 8}},
      {"test_limit", {0, 1, 5}},
      {"validation_share", {0, 0.25}},
      {"stream_seed", {1, 2}},
      {"test_share", {0.2}},
      {"hidden", {6, 1}},
      {"depth", {2, 0, 1}},
      {"width", {0, 1, 5}},
      {"spare_classes", {0, 3}},
      {"head_ridge", {1, 0, 1e-6}},
      {"head_filters", {3, 0, 1}},
      {"head_filter_size", {2, 1, 7}},
      {"head_grid", {2, 1, 9}},
      {"head_pool", {9, 0, 1}},
      {"head_width", {9, 1, 40}},
      {"heads", {2, 1}},
      {"top_k", {3, 1, 4}},
      {"d_key", {6, 2}},
      {"rows", {4, 1, 3}},
      {"cols", {4, 1, 2}},
      {"expert_width", {1, 2}},
      {"dropout", {0, 0.4}},
      {"norm_eps", {1e-5}},
      {"norm_momentum", {0.1, 0, 1}},
      {"key_scale", {0.5}},
      {"u_scale", {0, 0.1}},
      {"v_scale", {0.05, 0}},
      {"page_bytes", {256, 1}},
      {"seed", {1, 0}},
      {"output_regularisation", {0, 1}},
      {"growth_start", {2, 1, 4}},
      {"growth_loss", {0.5, 0}},
      {"growth_window", {1, 2}},
      {"drift_threshold", {0.1, 3}},
      {"drift_steps", {1, 2}},
      {"drift_window", {2, 50}},
      {"l2_strength", {0.5, 0}},
      {"ewc_strength", {50, 0}},
      {"online_ewc_strength", {50, 0}},
      {"ewc_gamma", {1, 0, 0.9}},
      {"fisher_examples", {0, 1, 9}},
      {"si_strength", {5, 0}},
      {"si_damping", {0.1}},
      {"mas_strength", {1, 0}},
      {"lwf_strength", {1, 0}},
      {"lwf_temperature", {2, 0.01}},
      {"memory", {9, 0, 1, 4, 100}},
      {"replay_batch", {0, 1, 3}},
      {"der_alpha", {0.1, 0}},
      {"der_beta", {0.5, 0}},
      {"task_memory", {5, 0, 1}},
      {"gem_margin", {0.5, 0}},
      {"gdumb_epochs", {1, 2}},
      {"update_slots", {5, 0, 1, 100}},
      {"packnet_prune", {0.5, 0, 0.999}},
      {"packnet_retrain", {0, 1}},
      {"strategy_seed", {1, 0}},
      {"epochs", {1, 2}},
      {"batch", {8, 1, 2, 7, 31, 100}},
      {"micro_batch", {0, 0, 0, 1, 3}},
      {"weight_decay", {0, 0, 0, 0.1}},
      {"clip_norm", {0, 0, 0.1}},
      {"lr", {1e-2, 0, 100}},
      {"router_lr", {0, 0.1}},
      {"expert_lr", {0, 0.1}},
      {"warmup", {0, 0, 1, 3}},
      {"expert_momentum", {0, 0.9}},
      {"expert_weight_decay", {0, 0.1}},
      {"features", {16, 1}},
      {"ridge", {100, 0, 1e-6}},
      {"gate_seed", {1, 0}},
      {"gate_filters", {3, 1}},
      {"gate_filter_size", {2, 1, 7}},
      {"gate_grid", {2, 1, 9}},
      {"gate_temperature", {10, 0}},
      {"head_weight", {0, 1}},
      {"autoencoder_code", {5, 1, 12}},
      {"autoencoder_lr", {1e-3, 1}},
      {"return_novelty", {0, 1.4, 1e6}},
      {"return_examples", {9, 1}},
      {"train_seed", {1, 0}},
      {"commit_every", {0, 1, 3}},
      {"anytime_every", {0, 1, 3}},
      {"anytime_first", {0, 2}},
      {"anytime_examples", {3, 0}},
  };
  return all;
}

// A visitor that draws options: one in three, and always those that decide what a run is; except
// for one choice, "name=value", which is given.
class Draw : public OptionVisitor {
 public:
  Draw(kernels::RandomStream& random, const std::string& given)
      : random_(random),
        name_(given.substr(0, given.find('='))),
        value_(given.substr(given.find('=') + 1)) {}

  void option(const Option& option) override {
    const std::string name(option.name());
    const bool drawn = random_.below(3) == 0 || kAlways.contains(option.name());
    if (name == "strategy") {
      option.set_text(name, some_set());
      return;
    }
    switch (option.type()) {
      case Option::Type::boolean:
        if (drawn) option.set_json(name, random_.below(2) == 1);
        break;
      case Option::Type::choice:
        if (name == name_) {
          option.set_text(name, value_);
        } else if (drawn) {
          option.set_text(name, of(option.choices()));
        }
        break;
      case Option::Type::integer:
      case Option::Type::number: {
        // Without values of its own its default, and the least that it may be.
        const auto found = values_to_draw().find(name);
        if (found != values_to_draw().end()) {
          const double value = drawn ? of(found->second) : found->second.front();
          option.set_text(name, options_detail::short_number(value));
        } else if (drawn) {
          option.set_text(name, options_detail::short_number(option.range().min));
        }
        break;
      }
      default:
        break;
    }
  }

 private:
  inline static const std::set<std::string_view> kAlways = {"stream", "model"};

  template <class T>
  T of(const std::vector<T>& all) {
    return all[random_.below(static_cast<std::uint32_t>(all.size()))];
  }
  // A strategy, in half of the draws with another one beside it where they compose.
  std::string some_set() {
    const std::string own = "strategy" == name_ ? value_ : std::string(of(all_strategies())->name);
    const bool alone = random_.below(2) == 0;
    const std::string other(of(all_strategies())->name);
    try {
      return StrategySet(alone ? own : own + "+" + other).text();
    } catch (const InvalidOptions&) {
      return own;
    }
  }

  kernels::RandomStream& random_;
  std::string name_, value_;
};

// Collects "name=value" of every choice: of one configuration, or with all values there are.
class Choices : public OptionVisitor {
 public:
  explicit Choices(bool all) : all_(all) {}

  void option(const Option& option) override {
    const auto add = [&](std::string_view text) {
      values.insert(std::string(option.name()) + "=" + std::string(text));
    };
    if (option.name() == "strategy") {
      const StrategySet set(option.text());
      for (const StrategyDeclaration* declaration : all_strategies()) {
        if (all_ || set.has(declaration->name)) add(declaration->name);
      }
    }
    for (const std::string& name : option.choices()) {
      if (all_ || name == option.text()) add(name);
    }
  }
  std::set<std::string> values;

 private:
  bool all_;
};

void visit_all(RunConfig config, Choices& choices) {
  RunConfig::visit(config, static_cast<OptionVisitor&>(choices));
}

struct Combination {
  RunConfig config;
  bool images = true;
  bool folder = false;  // a run folder, with a report
  int stop_after = 0;   // steps or experiences
};

Combination combination_of(std::uint64_t number, const std::string& given) {
  kernels::RandomStream random(number, 41);
  Combination combination;
  Draw draw(random, given);
  RunConfig::visit(combination.config, static_cast<OptionVisitor&>(draw));
  combination.images = random.below(4) > 0;
  combination.folder = random.below(4) == 0;
  combination.stop_after = static_cast<int>(1 + random.below(6));
  return combination;
}

TrainTest data_of(bool images, TaskKind task) {
  TrainTest data{make_data(32, 7), make_data(12, 8), "bright pixels"};
  for (Dataset* part : {&data.train, &data.test}) {
    part->image_rows = images ? 3 : 0;
    part->image_cols = images ? 4 : 0;
    if (task == TaskKind::classification) continue;
    // How bright it is, and how bright on the left.
    part->y = torch::stack({part->x.sum(1), part->x.narrow(1, 0, 6).sum(1)}, 1).to(torch::kDouble);
    part->targets = {"all", "left"};
    part->label_names.clear();
  }
  return data;
}

Stream stream_of(const Combination& combination) {
  return {combination.config.stream, data_of(combination.images, combination.config.task())};
}

class Combinations : public FolderTest {
 protected:
  // The trainer of a combination; empty where it is refused, with nothing left behind.
  std::unique_ptr<Trainer> accepted(const Combination& combination, storage::PageStore& store,
                                    const std::function<bool()>& stop = {}) const {
    RunSettings settings;
    settings.stop_requested = stop;
    if (combination.folder) settings.run_folder = folder_ / "run";
    try {
      combination.config.validate();  // before a stream is made in vain
      return std::make_unique<Trainer>(combination.config, stream_of(combination), &store,
                                       settings);
    } catch (const InvalidOptions&) {
      EXPECT_EQ(store.head().status().code(), storage::StatusCode::not_found);
      EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
      return nullptr;
    }
  }

  // Learns with a stop in between, and asks what was learnt. False where the combination is
  // refused.
  bool runs(const Combination& combination) const {
    std::filesystem::remove_all(folder_ / "run");
    const auto store = storage::make_memory_store();
    int polls = 0;
    auto trainer = accepted(combination, *store, [&] { return ++polls >= combination.stop_after; });
    if (trainer == nullptr) return false;
    RunResult result = trainer->run();
    if (!result.finished) {
      trainer.reset();
      trainer = accepted(combination, *store);
      if (trainer == nullptr) throw Error("refused where it resumes");
      result = trainer->run();
    }
    EXPECT_TRUE(result.finished);
    expect_answers_of(result, *store, stream_of(combination));
    return true;
  }
};

std::string text_of(std::uint64_t number, const Combination& combination) {
  std::string text = "combination " + std::to_string(number);
  if (!combination.images) text += ", no images";
  for (const std::string& field : differences(RunConfig{}, combination.config)) {
    text += "\n  " + field;
  }
  return text;
}

TEST_F(Combinations, WhatIsAcceptedRuns) {
  Choices ran(false), all(true);
  const RunConfig defaults;
  visit_all(defaults, all);
  const std::vector<std::string> choices(all.values.begin(), all.values.end());
  const std::uint64_t wanted = wanted_combinations();
  std::uint64_t count = 0;
  for (std::uint64_t number = 1; count < wanted; ++number) {
    // About one in twenty is accepted.
    ASSERT_LT(number, 100 * wanted) << "nearly all are refused";
    const Combination combination = combination_of(number, choices[number % choices.size()]);
    SCOPED_TRACE(text_of(number, combination));
    try {
      if (!runs(combination)) continue;
      visit_all(combination.config, ran);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    ++count;
  }
  // No value was left out by refusing all that has it.
  EXPECT_THAT(ran.values, ::testing::IsSupersetOf(all.values));
}

}  // namespace
}  // namespace perennial::continual
