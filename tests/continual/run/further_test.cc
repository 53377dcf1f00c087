// SPDX-License-Identifier: Apache-2.0
// Finished runs that go on with further data: what keeps its bits, what grows, what is refused.
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include "continual/data/table_testing.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/further_data.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

const std::vector<std::string> kTwo = {"apple", "pear"};
const std::vector<std::string> kThree = {"apple", "pear", "fig"};

TrainTest monday() {
  return {make_rows(160, 0, 2, kTwo, 3), make_rows(60, 0, 2, kTwo, 4), "monday"};
}
// Rows of pears and figs.
TrainTest tuesday() {
  return {make_rows(120, 1, 2, kThree, 5), make_rows(40, 1, 2, kThree, 6), "tuesday"};
}
// More of what is known.
TrainTest wednesday() {
  return {make_rows(120, 0, 2, kTwo, 7), make_rows(40, 0, 2, kTwo, 8), "wednesday"};
}

struct Learner {
  RunConfig config;
  std::unique_ptr<storage::PageStore> store = storage::make_memory_store();

  RunResult start() { return Trainer(config, {config.stream, monday()}, store.get(), {}).run(); }
  // What is known, for further data.
  LearntBefore before() const {
    const LearntModel learnt = load_learnt(*store, 0);
    return {learnt.task->names(), learnt.preprocessing, learnt.tests};
  }
  Stream further(TrainTest data) const { return {config.stream, std::move(data), before()}; }
  RunResult learn(Stream stream, std::function<bool()> stop = {}) {
    RunSettings settings;
    settings.stop_requested = std::move(stop);
    return Trainer(config, std::move(stream), store.get(), settings).run();
  }
};

TEST(FurtherData, StreamHasTheEarlierTestSets) {
  Learner learner{table_config()};
  learner.start();
  const Stream first(learner.config.stream, monday());
  const Stream both = learner.further(tuesday());
  EXPECT_EQ(both.experiences(), 2);
  EXPECT_EQ(both.earlier(), 1);
  EXPECT_EQ(both.train_size(0), 0);
  EXPECT_EQ(both.train_size(1), 120);
  EXPECT_EQ(both.label_names(), kThree);
  EXPECT_TRUE(at::equal(both.test_batch(0, 0, 60).x, first.test_batch(0, 0, 60).x));
  EXPECT_TRUE(at::equal(both.test_batch(0, 0, 60).y, first.test_batch(0, 0, 60).y));
  EXPECT_TRUE(at::equal(both.test_rows(1).x, tuesday().test.x));
  EXPECT_TRUE(at::equal(both.test_batch(1, 0, 40).y, tuesday().test.y));
  EXPECT_TRUE(at::equal(both.preprocessing().apply(tuesday().test.x), both.test_batch(1, 0, 40).x));
  EXPECT_TRUE(at::equal(both.train_batch(1, 0, 0, 16, 1).experience, at::full({16}, 1, at::kLong)));
}

TEST(FurtherData, LearnsANewClassAndMeasuresAllTestSets) {
  for (const std::string strategy : {"naive", "er", "er_ace"}) {
    SCOPED_TRACE(::testing::Message() << strategy);
    Learner learner{table_config(strategy)};
    const RunResult first = learner.start();
    EXPECT_GT(first.matrix.at(1, 0), 0.9);
    const RunResult result = learner.learn(learner.further(tuesday()));
    EXPECT_TRUE(result.finished);
    ASSERT_EQ(result.matrix.experiences(), 2);
    EXPECT_EQ(result.matrix.at(1, 0), first.matrix.at(1, 0));
    EXPECT_EQ(result.matrix.at(0, 0), first.matrix.at(0, 0));
    EXPECT_FALSE(result.matrix.has(0, 1));
    EXPECT_TRUE(result.matrix.has(1, 1));
    EXPECT_GT(result.matrix.at(2, 1), 0.9);
    EXPECT_EQ(fwt_gem(result.matrix), std::nullopt);
    EXPECT_TRUE(bwt_gem(result.matrix).has_value());
    // Naive forgets apples, of which there were none on Tuesday; replay remembers them.
    if (strategy != "naive") {
      EXPECT_GT(result.matrix.at(2, 0), 0.9);
    }

    const LearntModel learnt = load_learnt(*learner.store, 0);
    EXPECT_EQ(learnt.task->names(), kThree);
    ASSERT_EQ(learnt.tests.size(), 2U);
    const Stream tests = Stream::of_tests(
        learnt.config.stream, {learnt.task->names(), learnt.preprocessing, learnt.tests},
        learnt.data_digest);
    const Evaluation evaluation = evaluate(*learnt.model, tests, false);
    EXPECT_EQ(evaluation.scores,
              (std::vector<double>{result.matrix.at(2, 0), result.matrix.at(2, 1)}));

    // A third day, with nothing new.
    const RunResult third = learner.learn(learner.further(
        {make_rows(120, 0, 3, kThree, 9), make_rows(60, 0, 3, kThree, 10), "thursday"}));
    ASSERT_EQ(third.matrix.experiences(), 3);
    EXPECT_GT(acc(third.matrix).value(), 0.95);
    EXPECT_EQ(third.matrix.at(2, 0), result.matrix.at(2, 0));
  }
}

TEST(FurtherData, NewOutputsLeaveTheOldOnesTheirBits) {
  for (const bool peer : {false, true}) {
    SCOPED_TRACE(::testing::Message() << "peer " << peer);
    Learner learner{table_config("naive", peer ? ModelKind::peer : ModelKind::mlp)};
    if (peer) learner.config.model.width = 8;
    learner.start();
    const auto learnt = load_model(learner.config, kTableFeatures, 2, *learner.store, 0);
    const auto grown = load_model(learner.config, kTableFeatures, 3, *learner.store, 0, 2);
    const auto fresh = make_model(learner.config, kTableFeatures, 3, nullptr, 0);
    const auto before = learnt->trainable(), after = grown->trainable(), drawn = fresh->trainable();
    ASSERT_EQ(before.size(), after.size());
    int wider = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const torch::Tensor& old = before[i].second;
      const std::int64_t rows = old.size(0);
      EXPECT_TRUE(at::equal(after[i].second.narrow(0, 0, rows), old)) << before[i].first;
      if (after[i].second.size(0) == rows) continue;
      ++wider;
      EXPECT_TRUE(
          at::equal(after[i].second.narrow(0, rows, 1), drawn[i].second.narrow(0, rows, 1)));
    }
    EXPECT_EQ(wider, 2);  // weight and bias of the last layer
    EXPECT_THROW(load_model(learner.config, kTableFeatures, 3, *learner.store, 0), DataError);
  }
}

void expect_as_if_it_had_known_all_classes(const RunConfig& config) {
  Learner learner{config}, knowing{config};
  learner.start();
  TrainTest all = monday();
  all.train.label_names = all.test.label_names = kThree;
  Trainer(config, {config.stream, std::move(all)}, knowing.store.get(), {}).run();
  const RunResult grown = learner.learn(learner.further(tuesday()));
  const RunResult known = knowing.learn(knowing.further(tuesday()));
  const Batch rows = knowing.further(tuesday()).test_batch(1, 0, 40);
  const auto a = load_learnt(*learner.store, 0), b = load_learnt(*knowing.store, 0);
  EXPECT_TRUE(at::allclose(a.model->predict(rows.x, {}).answers,
                           b.model->predict(rows.x, {}).answers, 1e-4, 1e-5));
  EXPECT_EQ(grown.matrix.at(2, 0), known.matrix.at(2, 0));
  EXPECT_GT(acc(grown.matrix).value(), 0.8);
}

TEST(FurtherData, AnAnalyticHeadEndsAsIfItHadKnownAllClasses) {
  RunConfig config = table_config("naive", ModelKind::peer);
  config.model.head = HeadKind::analytic;
  config.train.epochs = 1;
  config.model.head_width = 64;
  expect_as_if_it_had_known_all_classes(config);
  config.model.head_inputs = HeadInputs::filters;
  config.model.head_filters = 0;
  config.model.head_pool = 24;
  config.model.head_ridge = 1e-3;
  config.model.peer.v_scale = 0.5;
  expect_as_if_it_had_known_all_classes(config);
}

TEST(FurtherData, ResumesToTheBit) {
  for (const std::string strategy : {"naive", "er"}) {
    for (int stop_after = 1; stop_after < 40; stop_after += 13) {
      SCOPED_TRACE(::testing::Message() << strategy << " stopped after " << stop_after);
      Learner whole{table_config(strategy)}, stopped{table_config(strategy)};
      whole.start();
      stopped.start();
      const RunResult expected = whole.learn(whole.further(tuesday()));
      const LearntBefore before = stopped.before();
      const Stream stream = stopped.further(tuesday());
      int steps = 0;
      EXPECT_FALSE(stopped.learn(stream, [&] { return ++steps == stop_after; }).finished);
      // The stream of the run that goes on, as run_stream makes it from files.
      const Stream again(stopped.config.stream, tuesday(), before);
      const RunResult resumed = stopped.learn(again);
      EXPECT_TRUE(resumed.finished);
      EXPECT_EQ(resumed.state_digest, expected.state_digest);
      EXPECT_EQ(matrix_of(resumed), matrix_of(expected));
    }
  }
}

TEST(FurtherData, OpensAGenerationForWhatIsKnown) {
  Learner learner{table_config("grow_freeze", ModelKind::peer)};
  learner.start();
  const auto digest_of = [&](std::size_t generation) {
    return load_learnt(*learner.store, 0)
        .model->only_layer()
        ->pool()
        .generations()
        .at(generation)
        .digest;
  };
  const storage::Digest frozen = digest_of(0);
  const RunResult result = learner.learn(learner.further(wednesday()));
  EXPECT_GT(result.matrix.at(2, 1), 0.8);
  EXPECT_EQ(load_learnt(*learner.store, 0).model->only_layer()->pool().generations().size(), 2U);
  EXPECT_EQ(digest_of(0), frozen);
}

TEST(FurtherData, OlderGenerationsNeverGiveANewClass) {
  for (const GateAnswer answer : {GateAnswer::hard, GateAnswer::mixed}) {
    Learner learner{table_config("grow_freeze", ModelKind::peer)};
    learner.config.model.spare_classes = 2;
    learner.config.train.gate_options.gate_answer = answer;
    learner.start();
    const auto model = [&] { return load_learnt(*learner.store, 0).model; };
    const Stream stream = learner.further(tuesday());
    const torch::Tensor figs = stream.test_batch(1, 0, 40).x, fruit = stream.test_batch(0, 0, 60).x;
    const torch::Tensor before = model()->predict(fruit, 0).answers;
    EXPECT_EQ(before.size(1), 2);
    const RunResult result = learner.learn(stream);
    EXPECT_GT(result.matrix.at(2, 1), 0.8);
    EXPECT_GT(result.matrix.at(2, 0), 0.6);  // half of its fruit, pears, were there on both days
    const torch::Tensor after = model()->predict(fruit, 0).answers;
    EXPECT_TRUE(at::allclose(after.narrow(1, 0, 2), before, 1e-6, 1e-7));
    EXPECT_EQ(model()->predict(figs, 0).answers.select(1, 2).abs().max().item<float>(), 0);
    EXPECT_GT(model()->predict(figs, 1).answers.select(1, 2).max().item<float>(), 0.5);
    // One more class, and no room for another.
    std::vector<std::string> names = {"apple", "pear", "fig", "plum"};
    learner.learn(learner.further(
        {make_rows(80, 2, 2, names, 9), make_rows(40, 2, 2, names, 10), "thursday"}));
    EXPECT_EQ(model()->predict(figs, 1).answers.select(1, 3).abs().max().item<float>(), 0);
    EXPECT_TRUE(
        at::allclose(model()->predict(fruit, 0).answers.narrow(1, 0, 2), before, 1e-6, 1e-7));
    names.emplace_back("quince");
    EXPECT_THROW(learner.learn(learner.further(
                     {make_rows(80, 3, 2, names, 9), make_rows(40, 3, 2, names, 10), "friday"})),
                 InvalidOptions);
  }
}

TEST(FurtherData, LearnsTheSameDataOnce) {
  Learner learner{table_config()};
  learner.start();
  const RunResult once = learner.learn(learner.further(tuesday()));
  const std::uint64_t commits = learner.store->log().size();
  LearntBefore before = learner.before();
  before.tests.pop_back();
  before.label_names = kTwo;
  const RunResult again = learner.learn({learner.config.stream, tuesday(), before});
  EXPECT_EQ(again.state_digest, once.state_digest);
  EXPECT_EQ(learner.store->log().size(), commits);
}

TEST(FurtherData, RefusesWhatCannotGoOn) {
  const auto refused = [](RunConfig config, const char* part) {
    SCOPED_TRACE(::testing::Message() << part);
    Learner learner{std::move(config)};
    learner.start();
    const std::uint64_t commits = learner.store->log().size();
    try {
      learner.learn(learner.further(tuesday()));
      ADD_FAILURE() << "was not refused";
    } catch (const InvalidOptions& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
    EXPECT_EQ(learner.store->log().size(), commits);
  };
  refused(table_config("ewc"), "strategy ewc cannot go on");
  refused(table_config("gem"), "strategy gem cannot go on");
  refused(table_config("der"), "1 new classes");
  RunConfig ring = table_config("er");
  ring.train.strategy_options.set("buffer", "ring");
  refused(ring, "1 new classes");
  refused(table_config("grow_freeze", ModelKind::peer), "experts answer with the classes");
  RunConfig anytime = table_config();
  anytime.train.anytime.anytime_every = 10;
  refused(anytime, "anytime");

  const auto invalid = [](auto change) {
    RunConfig config = table_config("grow_freeze", ModelKind::peer);
    config.model.spare_classes = 1;
    EXPECT_NO_THROW(config.validate());
    change(config);
    EXPECT_THROW(config.validate(), InvalidOptions);
  };
  invalid([](RunConfig& c) { c.model.peer.routing = Routing::shared; });
  invalid([](RunConfig& c) { c.train.gate_options.head_weight = 1; });
  invalid([](RunConfig& c) {
    c.train.strategy = "naive";
    c.model.model = ModelKind::mlp;
  });

  // DER goes on where the classes are the same.
  Learner der{table_config("der")};
  der.start();
  EXPECT_TRUE(der.learn(der.further(wednesday())).finished);
  // Another set-up, another table, no store.
  der.config.model.hidden = 17;
  EXPECT_THROW(der.learn(der.further(wednesday())), InvalidOptions);
  TrainTest other = wednesday();
  other.train.columns = other.test.columns = {"width", "weight", "height"};
  EXPECT_THROW(der.further(other), DataError);
  const Stream stream = Learner(std::move(der)).further(wednesday());
  const auto empty = storage::make_memory_store();
  EXPECT_THROW(Trainer(table_config("der"), stream, empty.get(), {}), InvalidOptions);
  EXPECT_THROW(further_stream(table_config(), *empty), InvalidOptions);
  RunConfig permuted = small_config({"permuted", [](RunConfig& config) {
                                       config.train.strategy = "naive";
                                       config.model.model = ModelKind::mlp;
                                     }});
  run(permuted, empty.get());
  EXPECT_THROW(further_stream(permuted, *empty), InvalidOptions);
}

}  // namespace
}  // namespace perennial::continual
