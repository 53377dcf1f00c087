// SPDX-License-Identifier: Apache-2.0
// The autoencoder gate learns what its definition says, keeps to it, and is stored whole.
#include "perennial/core/autoencoder_gate.h"

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

constexpr std::int64_t kInputWidth = 16;
constexpr AutoencoderGateOptions kCodeOptions{.autoencoder_code = 5, .autoencoder_lr = 0.02};

// Inputs of generation g: noise within a subspace of its own.
at::Tensor subspace_inputs(std::uint64_t g, std::uint64_t seed, std::int64_t tokens = 64) {
  return normal_tensor({tokens, 3}, 1000 + seed * 10 + g, 1.0F)
      .mm(normal_tensor({3, kInputWidth}, 500 + g, 1.0F));
}

AutoencoderGate trained_gate(std::int64_t generations = 3) {
  AutoencoderGate gate(kInputWidth, kCodeOptions, {});
  for (std::int64_t g = 0; g < generations; ++g) {
    gate.add_generation();
    for (std::uint64_t batch = 0; batch < 150; ++batch) {
      gate.observe(subspace_inputs(static_cast<std::uint64_t>(g), batch), g);
    }
    gate.close();
  }
  return gate;
}

TEST(AutoencoderGate, PicksTheGenerationThatReconstructsBest) {
  const AutoencoderGate gate = trained_gate();
  for (std::uint64_t g = 0; g < 3; ++g) {
    const at::Tensor x = subspace_inputs(g, 777, 200);
    const at::Tensor chosen = gate.choose(x);
    EXPECT_EQ(chosen.scalar_type(), at::kLong);
    EXPECT_GE((chosen == static_cast<std::int64_t>(g)).sum().item<std::int64_t>(), 190) << g;
    EXPECT_TRUE(at::equal(chosen, gate.scores(x).argmax(1)));
  }
}

TEST(AutoencoderGate, AStepIsAdamOnTheCrossEntropyOfTheReconstruction) {
  AutoencoderGate gate(kInputWidth, kCodeOptions, {});
  gate.add_generation();
  const auto stored = [&](const char* name) {
    storage::CommitRequest request;
    gate.add_to_commit(request);
    gate.commit_failed();
    return tensor_from(dense_bytes(request).at(std::string("gate/0/") + name), name);
  };
  std::vector<at::Tensor> w;
  for (const char* name : {"encoder", "encoder_bias", "decoder", "decoder_bias"}) {
    w.push_back(stored(name).clone().requires_grad_(true));
  }
  const at::Tensor x = subspace_inputs(0, 1);
  const auto error = [&] {
    const at::Tensor s = x.sigmoid();
    const at::Tensor h = (s.mm(w[0].t()) + w[1]).relu();
    return at::binary_cross_entropy_with_logits(h.mm(w[2].t()) + w[3], s, {}, {},
                                                at::Reduction::None);
  };
  error().mean().backward();
  gate.observe(x, 0);
  std::size_t i = 0;
  for (const char* name : {"encoder", "encoder_bias", "decoder", "decoder_bias"}) {
    // Adam's first step: lr g / (|g| + eps).
    const at::Tensor g = w[i].grad();
    const at::Tensor expected = w[i].detach() - 0.02 * g / (g.abs() + 1e-8);
    // Where the gradient is all but 0 its sign is rounding.
    const at::Tensor clear = g.abs().gt(1e-5);
    EXPECT_GE(clear.sum().item<std::int64_t>(), 4);
    const at::Tensor difference = (stored(name) - expected).abs().masked_select(clear);
    EXPECT_LT(difference.max().item<double>(), 1e-4) << name;
    w[i].detach().copy_(stored(name));
    ++i;
  }
  // The score is the negative mean error of a row.
  EXPECT_TRUE(at::allclose(gate.scores(x).select(1, 0), -error().mean(1), 1e-5, 1e-6));
}

TEST(AutoencoderGate, WhatANewerGenerationObservesChangesNoOlderScore) {
  AutoencoderGate gate = trained_gate(2);
  const at::Tensor x = subspace_inputs(0, 99);
  const at::Tensor before = gate.scores(x);
  gate.add_generation();
  // Not chosen before it has seen anything.
  EXPECT_TRUE(gate.choose(x).lt(2).all().item<bool>());
  EXPECT_TRUE(gate.shares(x).select(1, 2).eq(0).all().item<bool>());
  gate.observe(subspace_inputs(2, 0), 2);
  EXPECT_TRUE(at::equal(gate.scores(x).narrow(1, 0, 2), before));
  EXPECT_THROW(gate.observe(x, 0), Error);  // closed
  EXPECT_THROW(gate.observe(x, 3), Error);
}

TEST(AutoencoderGate, ScoresDoNotDependOnTheBatchAround) {
  // Widths of whole vectors, and others.
  for (const std::int64_t width : {5, 7, 13, 16, 31}) {
    AutoencoderGate gate(width, {.autoencoder_code = 3, .autoencoder_lr = 0.02}, {});
    for (std::int64_t g = 0; g < 2; ++g) {
      gate.add_generation();
      for (std::uint64_t batch = 0; batch < 20; ++batch) {
        gate.observe(normal_tensor({32, width}, 100 * batch + 10 * g), g);
      }
    }
    const at::Tensor x = normal_tensor({512, width}, 5), all = gate.scores(x);
    for (std::int64_t i = 0; i < x.size(0); ++i) {
      ASSERT_TRUE(same_bits(gate.scores(x.narrow(0, i, 1)), all.narrow(0, i, 1)))
          << width << " at " << i;
    }
    EXPECT_TRUE(same_bits(gate.scores(x.narrow(0, 1, 300)), all.narrow(0, 1, 300))) << width;
  }
}

TEST(AutoencoderGate, SaysWhatInputsItExpects) {
  const AutoencoderGate gate = trained_gate(1);
  const auto said = [&](const at::Tensor& x) {
    return message_of<Error>([&] { (void)gate.scores(x); });
  };
  EXPECT_THAT(said(at::ones({2, 15})), HasSubstr("(B, 16), not Float [2, 15]"));
  EXPECT_THAT(said(at::ones({2, 16}, at::kDouble)), HasSubstr("not Double"));
}

TEST(AutoencoderGate, SharesAreTheSoftmaxOfScoresTimesTheFactor) {
  AnalyticGateOptions answers;
  answers.gate_temperature = 3;
  AutoencoderGate gate(kInputWidth, kCodeOptions, answers);
  for (std::int64_t g = 0; g < 2; ++g) {
    gate.add_generation();
    gate.observe(subspace_inputs(static_cast<std::uint64_t>(g), 0), g);
  }
  const at::Tensor x = subspace_inputs(0, 3);
  EXPECT_TRUE(at::allclose(gate.shares(x), (3 * gate.scores(x)).softmax(1), 1e-5, 1e-6));
}

TEST(AutoencoderGate, ContinuesFromTheStoreBitForBit) {
  const auto store = storage::make_memory_store();
  AutoencoderGate whole(kInputWidth, kCodeOptions, {});
  const auto commit = [&](AutoencoderGate& gate) {
    storage::CommitRequest request;
    gate.add_to_commit(request);
    ASSERT_TRUE(store->commit(request).ok());
    gate.committed();
  };
  for (std::int64_t g = 0; g < 2; ++g) {
    whole.add_generation();
    for (std::uint64_t batch = 0; batch < 6; ++batch) {
      whole.observe(subspace_inputs(static_cast<std::uint64_t>(g), batch), g);
      if (batch == 3) commit(whole);
    }
    AutoencoderGate part = AutoencoderGate::load(*store, kInputWidth, kCodeOptions, {});
    EXPECT_EQ(part.generations(), g + 1);
    for (std::uint64_t batch = 4; batch < 6; ++batch) {
      part.observe(subspace_inputs(static_cast<std::uint64_t>(g), batch), g);
    }
    const at::Tensor x = subspace_inputs(0, 50);
    EXPECT_TRUE(at::equal(part.scores(x), whole.scores(x)));
    whole.close();
    commit(whole);
  }
  // Closed: no moments are left, and only a change is offered.
  for (const std::string& name : store->dense_names()) {
    EXPECT_FALSE(name.ends_with("/m") || name.ends_with("/v")) << name;
  }
  storage::CommitRequest request;
  AutoencoderGate::load(*store, kInputWidth, kCodeOptions, {}).add_to_commit(request);
  EXPECT_TRUE(request.dense.empty());
}

TEST(AutoencoderGate, ACodeMustBeSmallerThanTheInput) {
  try {
    AutoencoderGate gate(5, kCodeOptions, {});
    ADD_FAILURE() << "accepted";
  } catch (const InvalidOptions& error) {
    EXPECT_THAT(error.what(), HasSubstr("autoencoder_code"));
  }
}

}  // namespace
}  // namespace perennial
