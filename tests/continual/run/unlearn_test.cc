// SPDX-License-Identifier: Apache-2.0
// Unlearning: the newest generation goes to the bit, an older one only where nothing read it.
#include "perennial/continual/unlearn.h"

#include <gmock/gmock.h>

#include "continual/run/trainer_testing.h"
#include "perennial/continual/evaluate.h"
#include "perennial/storage/memory_store.h"
#include "support/store_wrapper.h"

namespace perennial::continual {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

storage::Digest digest_of(const storage::PageStore& store, const std::string& name = {}) {
  if (name.empty()) return value_or_throw(store.head()).state_digest;
  const std::uint64_t commit = value_or_throw(store.resolve(name));
  return value_or_throw(value_or_throw(store.at(commit))->head()).state_digest;
}

// Learns until the snapshot of experience `k` is there, and no further.
void learn_until(const RunConfig& config, storage::PageStore& store, int k) {
  const std::string name = "experience-" + std::to_string(k);
  bool due = false;  // the step that follows the commit would be one too many
  RunSettings settings;
  settings.on_progress = [&](const Progress& progress) {
    due = due || (progress.phase == "committing" && progress.experience == k - 1 &&
                  progress.examples_done >= k * 100 * config.train.epochs);
  };
  settings.stop_requested = [&] { return due; };
  Trainer(config, make_stream(config), &store, settings).run();
  ASSERT_TRUE(store.resolve(name).ok());
}

template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const InvalidOptions& error) {
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

class UnlearnTest : public ::testing::TestWithParam<Case> {};

TEST_P(UnlearnTest, OfTheNewestLeavesAStoreThatNeverLearntIt) {
  const RunConfig config = small_config(GetParam());
  const auto never = storage::make_memory_store(), store = storage::make_memory_store();
  learn_until(config, *never, 2);
  const RunResult whole = run(config, store.get());
  ASSERT_EQ(digest_of(*store, "experience-2"), digest_of(*never));

  const Unlearned done = unlearn(*store, {});
  EXPECT_THAT(done.generations, ElementsAre(2U));
  EXPECT_EQ(done.experience, 2);
  EXPECT_EQ(done.commit.state_digest, digest_of(*never));
  EXPECT_FALSE(done.held_by.empty()) << "the snapshot experience-3 still has it";
  for (const storage::CommitInfo& info : done.held_by) EXPECT_NE(info.snapshot, "experience-2");

  // Learnt again, it is what it was.
  const RunResult again = run(config, store.get());
  EXPECT_EQ(again.state_digest, whole.state_digest);
  EXPECT_EQ(matrix_of(again), matrix_of(whole));
}

TEST_P(UnlearnTest, OneAfterTheOtherDownToANewRun) {
  const RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store(), fresh = storage::make_memory_store();
  const RunResult whole = run(config, store.get());
  for (const int left : {2, 1}) {
    unlearn(*store, {});
    EXPECT_EQ(digest_of(*store), digest_of(*store, "experience-" + std::to_string(left)));
  }
  EXPECT_THAT(unlearn(*store, {}).generations, ElementsAre(0U));
  // As a new run commits before it trains.
  int commits = 0;
  RunSettings settings;
  settings.stop_requested = [&] { return true; };
  storage::Digest created;
  settings.on_progress = [&](const Progress&) {
    if (commits == 0 && fresh->head().ok()) {
      created = digest_of(*fresh);
      ++commits;
    }
  };
  Trainer(config, make_stream(config), fresh.get(), settings).run();
  EXPECT_EQ(digest_of(*store), created);
  EXPECT_EQ(run(config, store.get()).state_digest, whole.state_digest);
}

TEST_P(UnlearnTest, InTheMiddleOfAnExperience) {
  const RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store();
  const std::int64_t steps = 7 * config.train.epochs;  // of one experience: 100 / 16
  std::int64_t polls = 0;
  run(config, store.get(), [&] { return ++polls > 2 * steps + 2; });
  ASSERT_NE(digest_of(*store), digest_of(*store, "experience-2"));
  const Unlearned done = unlearn(*store, {});
  EXPECT_EQ(done.commit.state_digest, digest_of(*store, "experience-2"));
}

void dropout(RunConfig& c) { c.model.dropout = 0.2; }
void replay(RunConfig& c) {
  c.train.strategy = StrategySet("grow_freeze+er");
  c.train.strategy_options.set("memory", 24);
}

INSTANTIATE_TEST_SUITE_P(
    Runs, UnlearnTest,
    ::testing::Values(
        kPlain, Case{"oracle", [](RunConfig& c) { c.train.gate = GateChoice::oracle; }},
        Case{"two_epochs", [](RunConfig& c) { c.train.epochs = 2; }},
        Case{"class_heads", [](RunConfig& c) { c.train.gate_options.head_weight = 5; }},
        Case{"anytime",
             [](RunConfig& c) { c.train.anytime = {.anytime_every = 3, .anytime_examples = 10}; }},
        Case{"dropout", dropout}, Case{"replay", replay},
        Case{"distilled", [](RunConfig& c) { c.train.strategy = StrategySet("grow_freeze+lwf"); }}),
    [](const auto& info) { return info.param.name; });

TEST(Unlearn, OfAnOlderOneTakesItsTraceAndLeavesTheOthersBits) {
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  run(config, store.get());
  const LearntModel before = load_learnt(*store, 0);
  const Stream stream = make_stream(config);
  const Batch batch = stream.test_batch(2, 0, 40);
  const torch::Tensor newest = before.model->predict(batch.x, 2).answers;

  const Unlearned done = unlearn(*store, {.generation = 1});
  EXPECT_THAT(done.generations, ElementsAre(1U));
  EXPECT_FALSE(done.experience.has_value());

  // What was measured before is shown as such, also by later commits.
  EXPECT_THAT(run(config, store.get()).unlearned_since, ElementsAre(1U));
  const LearntModel after = load_learnt(*store, 0);
  PeerImpl& peer = *after.model->only_layer();
  EXPECT_TRUE(after.finished);
  EXPECT_TRUE(peer.frozen_intact());
  EXPECT_EQ(peer.pool().generations().size(), 3U) << "ids stay";
  EXPECT_EQ(peer.pool().experts(), 72U);
  EXPECT_TRUE(torch::equal(after.model->predict(batch.x, 2).answers, newest));
  EXPECT_THROW(after.model->predict(batch.x, 1), Error);
  EXPECT_FALSE(peer.pool().exists(std::int64_t{6} << 32)) << "its first row";
  for (std::int64_t e = 0; e < 3; ++e) {
    const Batch inputs = stream.test_batch(e, 0, 40);
    EXPECT_FALSE(after.model->predict(inputs.x, {}).generations.eq(1).any().item<bool>()) << e;
  }
  for (const std::string& name : store->dense_names()) {
    EXPECT_FALSE(name.starts_with("gate/1/") || name.starts_with("peer/router_00001/")) << name;
  }
  for (const storage::PageId& page : store->pages()) EXPECT_TRUE(page.row < 6 || page.row >= 12);

  // The gate is that of the other two alone, column by column.
  AnalyticGate gate(kFeatures, config.train.gate_options);
  for (int g = 0; g < 3; ++g) gate.add_generation();
  for (const std::int64_t e : {0, 2}) {
    for (std::int64_t step = 0; step < stream.steps_per_epoch(e, 16); ++step) {
      gate.observe(stream.train_batch(e, 0, step, 16, config.train.train_seed).x, e);
    }
  }
  EXPECT_TRUE(torch::equal(dynamic_cast<AnalyticGate&>(*after.model->gate()).scores(batch.x),
                           gate.scores(batch.x)));

  EXPECT_THAT(refusal([&] { unlearn(*store, {.generation = 1}); }), HasSubstr("before"));
  EXPECT_THAT(refusal([&] { unlearn(*store, {.generation = 3}); }), HasSubstr("0 to 2"));
  const Evaluation evaluation = evaluate(*after.model, stream, false);
  EXPECT_GT(*evaluation.gate_accuracy, 0.6) << "of the inputs whose generation is still there";
}

TEST(Unlearn, ARunGoesOnWithoutAnOlderGeneration) {
  for (const GateChoice choice : {GateChoice::analytic, GateChoice::oracle}) {
    RunConfig config = small_config(kPlain);
    config.train.gate = choice;
    const auto store = storage::make_memory_store(), whole = storage::make_memory_store();
    run(config, whole.get());
    learn_until(config, *store, 2);
    const Unlearned first = unlearn(*store, {.generation = 0});
    EXPECT_FALSE(first.experience.has_value());
    const RunResult result = run(config, store.get());
    EXPECT_TRUE(result.finished);
    // What is learnt afterwards is what would have been learnt.
    const LearntModel with = load_learnt(*whole, 0), without = load_learnt(*store, 0);
    const torch::Tensor x = make_stream(config).test_batch(2, 0, 40).x;
    EXPECT_TRUE(
        torch::equal(with.model->predict(x, 2).answers, without.model->predict(x, 2).answers));
    // And to unlearn that gives back the state before.
    EXPECT_EQ(unlearn(*store, {}).commit.state_digest, first.commit.state_digest);
    // With nothing between that is kept, the run starts anew.
    EXPECT_THAT(unlearn(*store, {}).generations, ElementsAre(1U));
    EXPECT_EQ(run(config, store.get()).state_digest, digest_of(*whole).hex());
  }
}

TEST(Unlearn, OfAnOlderOneIsRefusedWhereItWasReadUnlessToldToCascade) {
  for (const char* strategies : {"grow_freeze+er", "grow_freeze+lwf"}) {
    SCOPED_TRACE(strategies);
    RunConfig config = small_config(kPlain);
    config.train.strategy = StrategySet(strategies);
    const auto store = storage::make_memory_store();
    run(config, store.get());
    const storage::Digest before = digest_of(*store);
    EXPECT_THAT(refusal([&] { unlearn(*store, {.generation = 1}); }), HasSubstr("--cascade"));
    EXPECT_EQ(digest_of(*store), before);
    const Unlearned done = unlearn(*store, {.generation = 1, .cascade = true});
    EXPECT_THAT(done.generations, ElementsAre(1U, 2U));
    EXPECT_EQ(done.experience, 1);
    EXPECT_EQ(done.commit.state_digest, digest_of(*store, "experience-1"));
  }
}

TEST(Unlearn, AMemoryNeedsTheCommitThatItComesFrom) {
  const RunConfig config = small_config({"", replay});
  const auto store = storage::make_memory_store();
  run(config, store.get());
  const std::uint64_t then = value_or_throw(store->resolve("experience-2"));
  ASSERT_TRUE(store->drop({then}, "").ok());
  EXPECT_THAT(refusal([&] { unlearn(*store, {}); }), HasSubstr("memory"));
}

TEST(Unlearn, NeedsNoOtherCommitWithoutMemories) {
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  run(config, store.get());
  const storage::Digest expected = digest_of(*store, "experience-2");
  std::vector<std::uint64_t> all;
  const std::uint64_t head = value_or_throw(store->head()).commit;
  for (const storage::CommitInfo& info : store->log()) {
    if (info.commit != head) all.push_back(info.commit);
  }
  ASSERT_TRUE(store->drop(all, "").ok());
  EXPECT_EQ(unlearn(*store, {}).commit.state_digest, expected);
}

TEST(Unlearn, RefusesWhatHasNoGenerationsOfItsOwn) {
  const auto refused = [](const std::function<void(RunConfig&)>& change) {
    const RunConfig config = small_config({"", change});
    const auto store = storage::make_memory_store();
    run(config, store.get());
    return refusal([&] { unlearn(*store, {}); });
  };
  EXPECT_THAT(refused([](RunConfig& c) { c.train.strategy = "naive"; }), HasSubstr("naive"));
  EXPECT_THAT(refused([](RunConfig& c) { c.model.peer.routing = Routing::shared; }),
              HasSubstr("shared"));
  EXPECT_THAT(refused([](RunConfig& c) {
                c.train.strategy = "naive";
                c.model.model = ModelKind::mlp;
              }),
              HasSubstr("mlp"));
}

TEST(Unlearn, AFailedCommitLosesNothing) {
  class Failing final : public perennial::testing::StoreWrapper {
   public:
    using StoreWrapper::StoreWrapper;
    storage::Result<storage::CommitInfo> commit(const storage::CommitRequest&) override {
      return storage::Status(storage::StatusCode::no_space, "injected");
    }
  };
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  run(config, store.get());
  const storage::Digest before = digest_of(*store);
  Failing failing(*store);
  EXPECT_THROW(unlearn(failing, {}), StorageError);
  EXPECT_EQ(digest_of(*store), before);
  EXPECT_EQ(unlearn(*store, {}).commit.state_digest, digest_of(*store, "experience-2"));
}

// Of many tasks each column of the matrix stays, to the bit, from its freeze on where the
// generation is given; with a gate an answer changes only because the gate chose another one.
TEST(ManyTasks, OldAnswersChangeOnlyWithTheGate) {
  for (const GateChoice choice : {GateChoice::oracle, GateChoice::analytic}) {
    RunConfig config = small_config({"", [](RunConfig& c) { c.stream.experiences = 12; }});
    config.train.gate = choice;
    const auto store = storage::make_memory_store();
    const RunResult result = run(config, store.get());
    const Stream stream = make_stream(config);
    if (choice == GateChoice::oracle) {
      for (std::int64_t j = 0; j < 12; ++j) {
        for (std::int64_t row = j + 1; row <= 12; ++row) {
          EXPECT_EQ(result.matrix.at(row, j), result.matrix.at(j + 1, j)) << row << ", " << j;
        }
      }
      continue;
    }
    std::vector<Prediction> before;
    std::int64_t changed = 0, unexplained = 0;
    for (std::int64_t k = 1; k <= 12; ++k) {
      const auto then = value_or_throw(
          store->at(value_or_throw(store->resolve("experience-" + std::to_string(k)))));
      const LearntModel learnt = load_learnt(*then, 0);
      for (std::int64_t j = 0; j < k; ++j) {
        Prediction now = learnt.model->predict(stream.test_batch(j, 0, 40).x, {});
        if (std::cmp_less(j, before.size())) {
          const Prediction& was = before[static_cast<std::size_t>(j)];
          const torch::Tensor other = now.answers.ne(was.answers).any(1);
          changed += other.sum().item<std::int64_t>();
          unexplained +=
              other.logical_and(now.generations.eq(was.generations)).sum().item<std::int64_t>();
          before[static_cast<std::size_t>(j)] = std::move(now);
        } else {
          before.push_back(std::move(now));
        }
      }
    }
    EXPECT_EQ(unexplained, 0) << "of " << changed << " answers that changed";
    ::testing::Test::RecordProperty("changed", static_cast<int>(changed));
  }
}

}  // namespace
}  // namespace perennial::continual
