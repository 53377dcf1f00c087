// SPDX-License-Identifier: Apache-2.0
// Gates: the analytic gate finds the generation, is stored whole, and ignores the batch around.
#include "perennial/core/gate.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

constexpr std::int64_t kWidth = 16;

AnalyticGateOptions small_gate() {
  AnalyticGateOptions options;
  options.features = 128;
  options.ridge = 1;
  return options;
}

// Inputs of generation g: noise around a centre of its own.
at::Tensor inputs_of(std::uint64_t g, std::uint64_t seed, std::int64_t tokens = 64) {
  return normal_tensor({tokens, kWidth}, 1000 + seed * 10 + g, 0.5F) +
         normal_tensor({1, kWidth}, 500 + g, 1.5F);
}

AnalyticGate trained(std::int64_t generations = 3) {
  AnalyticGate gate(kWidth, small_gate());
  for (std::int64_t g = 0; g < generations; ++g) {
    gate.add_generation();
    for (std::uint64_t batch = 0; batch < 4; ++batch) {
      gate.observe(inputs_of(static_cast<std::uint64_t>(g), batch), g);
    }
  }
  return gate;
}

TEST(AnalyticGate, PicksTheGenerationOfSeparableInputs) {
  AnalyticGate gate = trained();
  for (std::uint64_t g = 0; g < 3; ++g) {
    const at::Tensor chosen = gate.choose(inputs_of(g, 77, 200));
    EXPECT_EQ(chosen.scalar_type(), at::kLong);
    EXPECT_GE((chosen == static_cast<std::int64_t>(g)).sum().item<std::int64_t>(), 198) << g;
  }
}

TEST(AnalyticGate, SolvesTheRidgeRegression) {
  // Against the definition, from scores alone: W = (sum f f' + ridge I)^-1 [sum_g f]. With scores
  // s = W f for the training inputs themselves, the residuals obey the normal equations:
  // W (A + ridge I) = B, so W f summed over a generation's inputs equals what a dense solve gives.
  AnalyticGate gate = trained(2);
  const at::Tensor probes = at::cat({inputs_of(0, 5, 20), inputs_of(1, 5, 20)});
  const at::Tensor scores = gate.scores(probes);
  EXPECT_EQ(scores.sizes(), (std::vector<std::int64_t>{40, 2}));
  // Indicator targets: a generation's own inputs score near 1, the others near 0.
  EXPECT_NEAR(scores.slice(0, 0, 20).select(1, 0).mean().item<double>(), 1, 0.15);
  EXPECT_NEAR(scores.slice(0, 0, 20).select(1, 1).mean().item<double>(), 0, 0.15);
  EXPECT_NEAR(scores.slice(0, 20).select(1, 1).mean().item<double>(), 1, 0.15);
}

TEST(AnalyticGate, ScoresDoNotDependOnTheBatchOrTheThreads) {
  AnalyticGate gate = trained();
  const at::Tensor x = inputs_of(1, 9, 130);
  const at::Tensor all = gate.scores(x);
  for (std::int64_t i = 0; i < x.size(0); i += 13) {
    EXPECT_TRUE(same_bits(gate.scores(x.slice(0, i, i + 1)), all.slice(0, i, i + 1))) << i;
  }
  EXPECT_TRUE(same_bits(gate.scores(x.slice(0, 40, 107)), all.slice(0, 40, 107)));
  EXPECT_TRUE(same_bits(gate.scores(x.t().contiguous().t()), all)) << "another memory layout";
  const int threads = at::get_num_threads();
  for (const int n : {1, 2, 3}) {
    at::set_num_threads(n);
    EXPECT_TRUE(same_bits(gate.scores(x), all)) << n;
  }
  at::set_num_threads(threads);
}

TEST(AnalyticGate, NewGenerationsTakePartAfterTheyAreSeen) {
  AnalyticGate gate = trained(2);
  (void)gate.choose(inputs_of(0, 1));  // solved once
  gate.add_generation();
  gate.observe(inputs_of(2, 0, 256), 2);
  EXPECT_EQ(gate.generations(), 3);
  EXPECT_GE((gate.choose(inputs_of(2, 8)) == 2).sum().item<std::int64_t>(), 60);
  EXPECT_GE((gate.choose(inputs_of(0, 8)) == 0).sum().item<std::int64_t>(), 60);
}

TEST(AnalyticGate, OlderGenerationsStatisticsDoNotMove) {
  // Order of summation: observing a newer generation leaves the older ones' entries unchanged, so a
  // commit writes only what the new one added.
  const auto store = storage::make_memory_store();
  AnalyticGate gate = trained(2);
  commit(*store, gate);
  const storage::Bytes a = *store->read_dense("gate/0/a"), b = *store->read_dense("gate/1/b");
  gate.add_generation();
  gate.observe(inputs_of(2, 0), 2);
  storage::CommitRequest request;
  gate.add_to_commit(request);
  EXPECT_FALSE(request.dense.contains("gate/0/a"));
  EXPECT_FALSE(request.dense.contains("gate/1/b"));
  EXPECT_TRUE(request.dense.contains("gate/2/a"));
  ASSERT_TRUE(store->commit(request).ok());
  gate.committed();
  EXPECT_EQ(*store->read_dense("gate/0/a"), a);
  EXPECT_EQ(*store->read_dense("gate/1/b"), b);
  // Interleaved observations of two generations give the sums of each alone.
  AnalyticGate mixed(kWidth, small_gate());
  mixed.add_generation();
  mixed.add_generation();
  for (std::uint64_t batch = 0; batch < 4; ++batch) {
    mixed.observe(inputs_of(1, batch), 1);
    mixed.observe(inputs_of(0, batch), 0);
  }
  const at::Tensor x = inputs_of(0, 3);
  EXPECT_TRUE(same_bits(mixed.scores(x), trained(2).scores(x)));
}

TEST(AnalyticGate, ComesBackFromTheStore) {
  const auto store = storage::make_memory_store();
  AnalyticGate gate = trained();
  const storage::Digest digest = commit(*store, gate).state_digest;
  AnalyticGate loaded = AnalyticGate::load(*store);
  EXPECT_EQ(loaded.generations(), 3);
  const at::Tensor x = inputs_of(1, 3);
  EXPECT_TRUE(same_bits(loaded.scores(x), gate.scores(x)));
  gate.observe(x, 2);
  loaded.observe(x, 2);
  EXPECT_TRUE(same_bits(loaded.scores(x), gate.scores(x)));
  const storage::Digest after = commit(*store, loaded).state_digest;
  EXPECT_NE(after, digest);
  EXPECT_EQ(commit(*store, gate).state_digest, after);
}

TEST(AnalyticGate, MalformedRecordsAreDataErrors) {
  namespace json = boost::json;
  const auto original = storage::make_memory_store();
  EXPECT_THROW((void)AnalyticGate::load(*original), StorageError) << "there is no gate";
  AnalyticGate gate = trained(2);
  commit(*original, gate);
  const std::string text = text_from(*original->read_dense("gate"));
  const auto changed = [&](const char* key, const json::value& value) {
    json::object record = json::parse(text).as_object();
    record[key] = value;
    return json::serialize(record);
  };
  const auto refusal = [&](const std::string& name, const storage::Bytes& bytes) {
    const auto store = storage::make_memory_store();
    storage::CommitRequest request;
    for (const std::string& entry : original->dense_names()) {
      request.dense[entry] = *original->read_dense(entry);
    }
    request.dense[name] = bytes;
    EXPECT_TRUE(store->commit(request).ok());
    return message_of<DataError>([&] { (void)AnalyticGate::load(*store); });
  };
  for (const std::string& record :
       {std::string("{"), std::string("[]"), std::string("{}"), changed("d_in", "x"),
        changed("d_in", -1), changed("d_in", 0), changed("generations", -1),
        changed("counts", json::array{3}), changed("options", json::object{{"features", 0}}),
        changed("options", json::object{{"feature", 7}}),
        changed("options", json::object{{"features", 64}})}) {
    EXPECT_THAT(refusal("gate", bytes_from(record)), HasSubstr("gate")) << record;
  }
  EXPECT_THAT(refusal("gate/1/a", bytes_from(at::zeros({2, 2}, at::kDouble))),
              HasSubstr("gate/1/a"));
  EXPECT_THAT(refusal("gate/1/b", bytes_from(at::zeros({128}))), HasSubstr("gate/1/b"));
  EXPECT_THAT(refusal("gate/0/b", bytes_from("junk")), HasSubstr("gate/0/b"));
}

TEST(AnalyticGate, RefusesWhatItCannotUse) {
  AnalyticGate gate(kWidth, small_gate());
  EXPECT_THAT(message_of<Error>([&] { (void)gate.choose(inputs_of(0, 0)); }),
              HasSubstr("no generation"));
  gate.add_generation();
  EXPECT_THAT(message_of<Error>([&] {
                gate.observe(at::ones({2, 3}), 0);
              }),
              ::testing::AllOf(HasSubstr("16"), HasSubstr("[2, 3]")));
  EXPECT_THAT(message_of<Error>([&] {
                gate.observe(at::ones({2, 16}, at::kDouble), 0);
              }),
              HasSubstr("Double"));
  EXPECT_THAT(message_of<Error>([&] { gate.observe(inputs_of(0, 0), 1); }),
              HasSubstr("generation 1"));
  EXPECT_THROW(gate.observe(inputs_of(0, 0), -1), Error);
  // One bad number must not spoil the statistics for good.
  at::Tensor bad = inputs_of(0, 0);
  bad[3][4] = NAN;
  EXPECT_THAT(message_of<DataError>([&] { gate.observe(bad, 0); }), HasSubstr("not finite"));
  gate.observe(inputs_of(0, 0), 0);
  EXPECT_EQ(gate.choose(inputs_of(0, 1)).sum().item<std::int64_t>(), 0);
  EXPECT_EQ(gate.choose(at::empty({0, kWidth})).size(0), 0);
  EXPECT_EQ(gate.scores(at::full({2, kWidth}, NAN)).size(0), 2) << "asking is harmless";
}

TEST(AnalyticGate, SharesAreTheSoftmaxOfTheScores) {
  AnalyticGateOptions options = small_gate();
  options.gate_temperature = 3;
  AnalyticGate gate(kWidth, options);
  for (std::int64_t g = 0; g < 3; ++g) {
    gate.add_generation();
    gate.observe(inputs_of(static_cast<std::uint64_t>(g), 0), g);
  }
  const at::Tensor x = at::cat({inputs_of(0, 7, 30), inputs_of(2, 7, 30)});
  const at::Tensor shares = gate.shares(x);
  EXPECT_TRUE(at::allclose(shares, (3 * gate.scores(x)).softmax(1), 1e-5, 1e-6));
  EXPECT_TRUE(at::equal(shares.argmax(1), gate.choose(x)));
  // One that has seen nothing has no share, and sharp shares leave out what hardly counts.
  gate.add_generation();
  EXPECT_EQ(gate.shares(x).select(1, 3).max().item<float>(), 0);
  options.gate_temperature = 1000;
  AnalyticGate sharp(kWidth, options);
  sharp.add_generation();
  sharp.add_generation();
  EXPECT_TRUE(at::equal(sharp.shares(x).select(1, 0), at::ones({60}))) << "the oldest answers";
  sharp.observe(inputs_of(0, 0), 0);
  sharp.observe(inputs_of(2, 0), 1);
  EXPECT_EQ(sharp.shares(inputs_of(2, 5)).select(1, 1).eq(1).sum().item<std::int64_t>(), 64);
}

TEST(AnalyticGate, NoveltyTellsInputsOfAGenerationFromOthers) {
  AnalyticGate gate = trained(2);
  EXPECT_NEAR(gate.novelty(inputs_of(0, 77, 200), 0), 1, 0.6);
  EXPECT_GT(gate.novelty(inputs_of(1, 77, 200), 0), 3 * gate.novelty(inputs_of(0, 77, 200), 0));
  EXPECT_GT(gate.novelty(inputs_of(0, 77, 200), 1), 3 * gate.novelty(inputs_of(1, 77, 200), 1));
  // What was observed has mean leverage exactly as expected.
  AnalyticGate one(kWidth, small_gate());
  one.add_generation();
  EXPECT_TRUE(std::isinf(one.novelty(inputs_of(0, 1), 0)));
  one.observe(inputs_of(0, 1), 0);
  EXPECT_NEAR(one.novelty(inputs_of(0, 1), 0), 1, 1e-6);
}

TEST(AnalyticGate, ClassHeadsAreOfTheirGenerationAlone) {
  AnalyticGateOptions options = small_gate();
  options.head_weight = 1;
  AnalyticGate gate(kWidth, options, 2);
  const at::Tensor y = at::arange(64).remainder(2);
  const auto inputs = [&](std::uint64_t g, std::uint64_t seed) {
    // Classes are swapped between the generations.
    const at::Tensor sign = (y.to(at::kFloat) * 2 - 1) * (g == 0 ? 1.0F : -1.0F);
    return inputs_of(g, seed) + sign.unsqueeze(1) * normal_tensor({1, kWidth}, 7);
  };
  gate.add_generation();
  gate.observe(inputs(0, 1), 0, y);
  gate.observe(inputs(0, 2), 0, y);
  const at::Tensor before = gate.class_scores(inputs(0, 5), 0);
  EXPECT_GT(before.argmax(1).eq(y).sum().item<std::int64_t>(), 60);
  gate.add_generation();
  gate.observe(inputs(1, 1), 1, y);
  gate.observe(inputs(1, 2), 1, y);
  EXPECT_TRUE(same_bits(gate.class_scores(inputs(0, 5), 0), before));
  EXPECT_GT(gate.class_scores(inputs(1, 5), 1).argmax(1).eq(y).sum().item<std::int64_t>(), 60);
  EXPECT_TRUE(same_bits(gate.class_scores(inputs(0, 5).slice(0, 3, 4), 0), before.slice(0, 3, 4)));

  const auto store = storage::make_memory_store();
  commit(*store, gate);
  AnalyticGate loaded = AnalyticGate::load(*store);
  EXPECT_TRUE(same_bits(loaded.class_scores(inputs(0, 5), 0), before));
  EXPECT_EQ(loaded.novelty(inputs(0, 5), 1), gate.novelty(inputs(0, 5), 1));
  EXPECT_THROW(gate.observe(inputs(1, 1), 1), Error) << "heads need classes";
  EXPECT_THROW(AnalyticGate(kWidth, options), InvalidOptions);
  EXPECT_THROW((void)trained(1).class_scores(inputs(0, 1), 0), Error) << "it has no heads";
}

TEST(AnalyticGate, ReadsImagesByConvolution) {
  AnalyticGateOptions options = small_gate();
  options.gate_features = FeatureKind::convolution;
  options.gate_filters = 4;
  options.gate_filter_size = 2;
  options.gate_grid = 2;
  EXPECT_THROW(AnalyticGate(kWidth, options), InvalidOptions) << "no image";
  AnalyticGate gate(kWidth, options, 0, {4, 4});
  for (std::int64_t g = 0; g < 2; ++g) {
    gate.add_generation();
    for (std::uint64_t batch = 0; batch < 4; ++batch) {
      gate.observe(inputs_of(static_cast<std::uint64_t>(g), batch), g);
    }
  }
  EXPECT_GE((gate.choose(inputs_of(1, 9)) == 1).sum().item<std::int64_t>(), 60);
  const auto store = storage::make_memory_store();
  commit(*store, gate);
  EXPECT_TRUE(
      same_bits(AnalyticGate::load(*store).scores(inputs_of(1, 9)), gate.scores(inputs_of(1, 9))));
}

TEST(GateKind, HasThreeNames) {
  EXPECT_EQ(parse_enum<GateKind>("gate", "oracle"), GateKind::oracle);
  EXPECT_EQ(parse_enum<GateKind>("gate", "none"), GateKind::none);
  EXPECT_EQ(parse_enum<GateKind>("gate", "analytic"), GateKind::analytic);
}

}  // namespace
}  // namespace perennial
