// SPDX-License-Identifier: Apache-2.0
// Mixed precision: a linear layer is what LibTorch's autocast makes of it, to the bit, and the PEER
// layer's query is rounded as such a product is, without losing what the layer promises.
#include "perennial/core/amp.h"

#include <ATen/autocast_mode.h>

#include "core_testing.h"

namespace perennial {
namespace {

using testing::normal_tensor;
using testing::same_bits;

class Autocast {
 public:
  Autocast() {
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
};

TEST(Amp, ALinearLayerIsAutocasts) {
  for (const bool with_bias : {true, false}) {
    const at::Tensor x = normal_tensor({9, 20}, 1), w = normal_tensor({7, 20}, 2),
                     b = normal_tensor({7}, 3), weight = normal_tensor({9, 7}, 4);
    std::vector<at::Tensor> outputs[2];
    for (const bool ours : {true, false}) {
      std::vector<at::Tensor> in;
      for (const at::Tensor& tensor : {x, w, b}) {
        in.push_back(tensor.clone().requires_grad_(true));
      }
      const std::optional<at::Tensor> bias = with_bias ? std::optional(in[2]) : std::nullopt;
      at::Tensor y;
      if (ours) {
        y = linear(in[0], in[1], bias, Amp::bf16);
      } else {
        const Autocast autocast;
        y = at::linear(in[0], in[1], bias);
        EXPECT_EQ(y.scalar_type(), at::kBFloat16);
        y = y.to(at::kFloat);
      }
      (y * weight).sum().backward();
      outputs[ours] = {y, in[0].grad(), in[1].grad()};
      if (with_bias) outputs[ours].push_back(in[2].grad());
    }
    for (std::size_t i = 0; i < outputs[0].size(); ++i) {
      EXPECT_TRUE(same_bits(outputs[1][i], outputs[0][i])) << i;
      EXPECT_EQ(outputs[1][i].scalar_type(), at::kFloat);
    }
    EXPECT_TRUE(same_bits(linear(x, w, b, Amp::off), at::linear(x, w, b)));
    EXPECT_FALSE(same_bits(linear(x, w, b, Amp::bf16), at::linear(x, w, b)));
  }
}

class AmpLayerTest : public ::testing::TestWithParam<QueryNorm> {};

TEST_P(AmpLayerTest, RoundsTheQueryAndNothingElse) {
  PeerOptions options = testing::small_options();
  options.query_norm = GetParam();
  PeerImpl peer(options), rounds(options);
  rounds.set_amp(Amp::bf16);
  const at::Tensor x = normal_tensor({8, options.d_in}, 5);
  const at::Tensor full = testing::evaluate(peer, x), low = testing::evaluate(rounds, x);
  EXPECT_FALSE(same_bits(full, low));
  EXPECT_LT((full - low).norm().item<double>(), 0.1 * full.norm().item<double>());
  // Batches and later generations change no bit.
  EXPECT_TRUE(same_bits(testing::evaluate(rounds, x.narrow(0, 3, 1)), low.narrow(0, 3, 1)));
  rounds.freeze();
  const auto frozen = [&] {
    const at::NoGradGuard no_grad;
    rounds.eval();
    return rounds.forward(x, 0);
  };
  const at::Tensor before = frozen();
  rounds.grow();
  EXPECT_TRUE(same_bits(frozen(), before));
  rounds.set_amp(Amp::off);
  EXPECT_FALSE(same_bits(frozen(), before));
}

TEST_P(AmpLayerTest, GradientsAreThoseOfTheRoundedProduct) {
  PeerOptions options = testing::small_options();
  options.query_norm = GetParam();
  options.rows = options.cols = 2;
  options.top_k = 4;  // all of them: nothing that rounding could choose otherwise
  const at::Tensor x = normal_tensor({8, options.d_in}, 5);
  std::vector<at::Tensor> gradients[2];
  for (const Amp amp : {Amp::off, Amp::bf16}) {
    PeerImpl peer(options);
    peer.set_amp(amp);
    if (amp == Amp::off) {
      // What the rounded layer reads.
      const at::NoGradGuard no_grad;
      for (auto& [name, tensor] : peer.trainable()) {
        if (name.ends_with("/query")) tensor.copy_(rounded(tensor, Amp::bf16));
      }
    }
    const at::Tensor in = x.to(at::kBFloat16).to(at::kFloat).requires_grad_(true);
    peer.train(true);
    peer.forward(in).square().sum().backward();
    gradients[amp == Amp::bf16].push_back(in.grad());
    for (const auto& [name, tensor] : peer.trainable()) {
      gradients[amp == Amp::bf16].push_back(tensor.grad());
      if (!name.ends_with("/query")) continue;
      EXPECT_EQ(same_bits(rounded(tensor.grad(), Amp::bf16), tensor.grad()), amp == Amp::bf16);
    }
  }
  // bf16 keeps 8 bits of a number.
  for (std::size_t i = 0; i < gradients[0].size(); ++i) {
    const at::Tensor &a = gradients[0][i], &b = gradients[1][i];
    EXPECT_LE((a - b).norm().item<double>(), 0.05 * a.norm().item<double>()) << i;
  }
  EXPECT_FALSE(same_bits(gradients[0][0], gradients[1][0]));
}

INSTANTIATE_TEST_SUITE_P(Norms, AmpLayerTest,
                         ::testing::Values(QueryNorm::none, QueryNorm::batch, QueryNorm::layer,
                                           QueryNorm::rms),
                         [](const auto& info) { return std::string(enum_name(info.param)); });

}  // namespace
}  // namespace perennial
