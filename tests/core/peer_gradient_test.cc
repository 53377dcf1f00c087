// SPDX-License-Identifier: Apache-2.0
// Value and gradients of the PEER layer against the oracle; accumulation; what is refused.
#include <torch/csrc/autograd/autograd.h>

#include <set>

#include "core/core_testing.h"
#include "core/peer_oracle.h"
#include "pool/tape.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

// fp32 of the module against double: sums of at most some dozens of terms of order 1.
constexpr double kValueTolerance = 1e-5;
// Relative to the largest gradient of the tensor; batch norm over few tokens amplifies rounding.
constexpr double kGradientTolerance = 1e-4;

struct NormCase {
  QueryNorm norm;
  bool training;
  const char* name;
};

class Gradient : public ::testing::TestWithParam<NormCase> {};

void expect_close(const std::string& name, const at::Tensor& found,
                  const std::vector<double>& expected) {
  ASSERT_TRUE(found.defined()) << name << " has no gradient";
  const std::vector<double> values = to_doubles(found);
  ASSERT_EQ(values.size(), expected.size()) << name;
  double largest = 1e-3;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], expected[i], kGradientTolerance * largest) << name << " at " << i;
  }
}

// x needs a leaf; the oracle sees the same numbers.
void check_gradients(const PeerOptions& options, bool training, bool x_gradient) {
  PeerImpl peer(options);
  {
    // Away from gamma = 1, beta = 0, mean = 0, var = 1, where mistakes hide.
    const at::NoGradGuard no_grad;
    std::uint64_t seed = 50;
    for (const auto& item : peer.named_parameters()) {
      const bool norm = item.key().ends_with("gamma") || item.key().ends_with("beta");
      if (norm) item.value().add_(normal_tensor(item.value().sizes(), ++seed, 0.3F));
    }
    for (const auto& item : peer.named_buffers()) {
      item.value().add_(normal_tensor(item.value().sizes(), ++seed, 0.2F).abs());
    }
  }
  peer.train(training);
  peer.set_expert_gradients(ExpertGradients::always);
  at::Tensor x = normal_tensor({6, options.d_in}, 11);
  PeerOracle oracle(peer, x, training);
  x.requires_grad_(x_gradient);
  if (options.dropout > 0) {
    // Slot i is dropped when word i % 4 of counter (i / 4, 0, 0, 0x44000000) is below p 2^32.
    for (std::uint32_t i = 0; i < oracle.ids().size(); ++i) {
      const auto words =
          kernels::philox(static_cast<std::uint64_t>(options.seed), {i / 4, 0, 0, 0x44000000});
      const bool dropped = words[i % 4] < options.dropout * 0x1p32;
      oracle.slot_factors.push_back(dropped ? 0 : 1 / (1 - options.dropout));
    }
    ASSERT_EQ(std::set<double>(oracle.slot_factors.begin(), oracle.slot_factors.end()).size(), 2u);
  }
  const at::Tensor y = peer.forward(x);
  const std::vector<double> expected = oracle.forward();
  const std::vector<double> found = to_doubles(y);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_NEAR(found[i], expected[i], kValueTolerance) << "y at " << i;
  }
  if (!training || options.query_norm != QueryNorm::batch) {
    EXPECT_EQ(at::tensor(oracle.ids()).equal(peer.retrieve(x, 0).ids.view(-1)), true);
  }

  const at::Tensor dy = normal_tensor(y.sizes(), 12);
  y.backward(dy);
  const std::vector<double> grad = to_doubles(dy);
  const auto parameters = peer.named_parameters();
  if (x_gradient) expect_close("x", x.grad(), oracle.gradient("x", grad));
  expect_close("query", parameters["router_0.query"].grad(), oracle.gradient("query", grad));
  expect_close("row keys", parameters["router_0.row_keys_00000"].grad(),
               oracle.gradient("row_keys", grad));
  expect_close("column keys", parameters["router_0.col_keys_00000"].grad(),
               oracle.gradient("col_keys", grad));
  for (const char* name : {"gamma", "beta"}) {
    if (!oracle.values.contains(name)) continue;
    expect_close(name, parameters[std::string("router_0.") + name].grad(),
                 oracle.gradient(name, grad));
  }
  const CompactGradient experts = peer.pool().compact_gradient();
  const std::set<std::int64_t> unique(oracle.ids().begin(), oracle.ids().end());
  EXPECT_LT(unique.size(), oracle.ids().size()) << "no expert is retrieved twice";
  ASSERT_EQ(experts.ids.numel(), static_cast<std::int64_t>(unique.size()));
  std::int64_t row = 0;
  for (const std::int64_t id : unique) {
    EXPECT_EQ(experts.ids[row].item<std::int64_t>(), id);
    expect_close("expert " + std::to_string(id), experts.values[row++],
                 oracle.gradient(std::to_string(id), grad));
  }
}

TEST_P(Gradient, EqualsCentralDifferences) {
  for (const auto& [score, score_name] : enum_names(kernels::ScoreFunction{})) {
    for (const auto& [activation, activation_name] : enum_names(kernels::Activation{})) {
      for (const bool glu : {false, true}) {
        for (const SubKeys keys : {SubKeys::per_head, SubKeys::common}) {
          PeerOptions options;
          options.d_in = 5;
          options.d_out = 3;
          options.heads = 3;
          options.top_k = 3;
          options.d_key = 4;
          options.rows = 4;
          options.cols = 3;
          options.v_scale = 0.5;
          options.query_norm = GetParam().norm;
          options.score = score;
          options.activation = activation;
          options.glu = glu;
          options.sub_keys = keys;
          SCOPED_TRACE(std::string(score_name) + " " + std::string(activation_name) +
                       (glu ? " glu " : " ") + std::string(enum_name(keys)));
          check_gradients(options, GetParam().training, true);
        }
      }
    }
  }
}

// Wide experts, bf16 weights and dropout, alone and together.
TEST_P(Gradient, OfTheLayersVariants) {
  struct Variant {
    std::int64_t width;
    kernels::WeightType dtype;
    double dropout;
  };
  using enum kernels::WeightType;
  for (const auto& [width, dtype, dropout] :
       {Variant{3, f32, 0}, Variant{1, bf16, 0}, Variant{1, f32, 0.3}, Variant{10, bf16, 0.5}}) {
    for (const auto& [score, name] : enum_names(kernels::ScoreFunction{})) {
      PeerOptions options = small_options();
      options.rows = options.cols = 4;
      options.query_norm = GetParam().norm;
      options.glu = score == kernels::ScoreFunction::relu;
      options.score = score;
      options.activation = kernels::Activation::silu;
      options.v_scale = 0.2;
      options.expert_width = width;
      options.dtype = dtype;
      options.dropout = GetParam().training ? dropout : 0;
      SCOPED_TRACE(std::string(name) + " width " + std::to_string(width) + " dropout " +
                   std::to_string(options.dropout));
      check_gradients(options, GetParam().training, true);
    }
  }
}

TEST_P(Gradient, NeedsNoGradientOfTheInput) {
  PeerOptions options = small_options();
  options.rows = options.cols = 4;
  options.query_norm = GetParam().norm;
  check_gradients(options, GetParam().training, false);
}

INSTANTIATE_TEST_SUITE_P(Norms, Gradient,
                         ::testing::Values(NormCase{QueryNorm::batch, true, "batch_training"},
                                           NormCase{QueryNorm::batch, false, "batch_evaluation"},
                                           NormCase{QueryNorm::layer, true, "layer"},
                                           NormCase{QueryNorm::rms, true, "rms"},
                                           NormCase{QueryNorm::none, true, "none"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Gradient, OfAFoldedRouterReachesTheInput) {
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 3, 1);
  peer.eval();
  at::Tensor x = inputs(5).requires_grad_();
  peer.forward(x).sum().backward();
  const at::Tensor before = x.grad().clone();
  peer.zero_grad();
  peer.freeze();
  x.mutable_grad().zero_();
  peer.train();
  peer.forward(x).sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), before, 1e-4, 1e-5));
}

// Gradients of everything, in a fixed order: parameters, then (ids, values) of the experts.
std::vector<at::Tensor> gradients_of(PeerImpl& peer) {
  std::vector<at::Tensor> gradients;
  for (auto& [name, parameter] : peer.trainable()) gradients.push_back(parameter.grad().clone());
  const CompactGradient experts = peer.pool().compact_gradient();
  at::Tensor dense = at::zeros({64, 18});
  for (std::int64_t i = 0; i < experts.ids.numel(); ++i) {
    const auto id = experts.ids[i].item<std::int64_t>();
    dense[kernels::row_of(id) * 8 + kernels::col_of(id)] = experts.values[i];
  }
  gradients.push_back(dense);
  return gradients;
}

void clear(PeerImpl& peer) {
  peer.zero_grad();
  peer.pool().clear_gradients();
}

TEST(Accumulation, TwoBackwardsAddUp) {
  PeerOptions options = small_options();
  options.query_norm = QueryNorm::rms;
  PeerImpl peer(options);
  const at::Tensor a = inputs(1), b = inputs(2);
  backward(peer, a);
  const std::vector<at::Tensor> first = gradients_of(peer);
  clear(peer);
  EXPECT_EQ(peer.pool().compact_gradient().ids.numel(), 0);
  backward(peer, b);
  const std::vector<at::Tensor> second = gradients_of(peer);
  clear(peer);
  backward(peer, a);
  backward(peer, b);
  const std::vector<at::Tensor> both = gradients_of(peer);
  clear(peer);
  // One batch of all tokens is the same sum.
  backward(peer, at::cat({a, b}));
  const std::vector<at::Tensor> at_once = gradients_of(peer);
  clear(peer);
  // Used twice in one graph.
  const at::Tensor ya = peer.forward(a), yb = peer.forward(b);
  ((ya - 1).pow(2).sum() / 2 + (yb - 1).pow(2).sum() / 2).backward();
  const std::vector<at::Tensor> one_graph = gradients_of(peer);
  for (std::size_t i = 0; i < both.size(); ++i) {
    const at::Tensor sum = first[i] + second[i];
    const double scale = sum.abs().max().item<double>();
    EXPECT_GT(scale, 0);
    for (const auto& found : {both[i], at_once[i], one_graph[i]}) {
      EXPECT_LE((found - sum).abs().max().item<double>(), 1e-5 * scale) << i;
    }
  }
}

TEST(Accumulation, TheLayerOnItsOwnOutput) {
  PeerOptions options = small_options();
  options.d_out = 12;
  options.query_norm = QueryNorm::none;
  PeerImpl peer(options);
  at::Tensor x = inputs(1).requires_grad_();
  const at::Tensor middle = peer.forward(x);
  peer.forward(middle).sum().backward();
  const at::Tensor chained = peer.pool().compact_gradient().values;
  const at::Tensor dx = x.grad().clone();
  clear(peer);
  // By hand: the second use first, then the first with what came out of it.
  at::Tensor leaf = middle.detach().clone().requires_grad_();
  peer.forward(leaf).sum().backward();
  x.mutable_grad().zero_();
  peer.forward(x).backward(leaf.grad());
  EXPECT_TRUE(same_bits(peer.pool().compact_gradient().values, chained));
  EXPECT_TRUE(same_bits(x.grad(), dx));
}

TEST(Accumulation, BuffersMayBeReusedBeforeTheStep) {
  // A training loop that fills one input buffer, and one gradient buffer, again and again.
  PeerOptions options = small_options();
  options.query_norm = QueryNorm::rms;
  PeerImpl peer(options), reference(options);
  at::Tensor x = at::empty({8, 12}), dy = at::empty({8, 6});
  for (std::uint64_t i = 0; i < 3; ++i) {
    x.copy_(inputs(i));
    dy.copy_(normal_tensor({8, 6}, 90 + i));
    peer.forward(x).backward(dy);
    reference.forward(inputs(i)).backward(normal_tensor({8, 6}, 90 + i));
  }
  x.fill_(1e6);
  dy.fill_(1e6);
  EXPECT_TRUE(
      same_bits(peer.pool().compact_gradient().values, reference.pool().compact_gradient().values));
}

TEST(Accumulation, TrainingBetweenForwardAndBackwardChangesNothing) {
  // The backward of an evaluation uses the statistics of its own forward.
  PeerImpl peer(small_options());
  SparseOptimizer adam(peer.pool(), {});
  train(peer, adam, 2, 1);
  peer.eval();
  peer.set_expert_gradients(ExpertGradients::always);
  peer.zero_grad();
  const at::Tensor y = peer.forward(inputs(3));
  y.sum().backward();
  const std::vector<at::Tensor> expected = gradients_of(peer);
  clear(peer);
  const at::Tensor again = peer.forward(inputs(3));
  peer.train();
  {
    const at::NoGradGuard no_grad;
    (void)peer.forward(inputs(4) * 10 + 3);  // moves the running statistics
  }
  again.sum().backward();
  const std::vector<at::Tensor> found = gradients_of(peer);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same_bits(found[i], expected[i])) << i;
}

void stop_router(PeerImpl& peer) {
  for (at::Tensor& parameter : peer.parameters()) parameter.requires_grad_(false);
}

// Fine-tuning the experts alone, with a layer behind that learns or without one.
TEST(ExpertGradients, AreLeftWhenNothingElseHasOne) {
  for (const bool head : {true, false}) {
    PeerImpl all(small_options()), alone(small_options());
    stop_router(alone);
    const at::Tensor weight = normal_tensor({2, 6}, 4).requires_grad_(head);
    const at::Tensor x = inputs(1);
    for (PeerImpl* peer : {&all, &alone}) {
      const at::Tensor y = peer->forward(x);
      ASSERT_TRUE(y.requires_grad());
      y.mm(weight.t()).square().sum().backward();
    }
    const CompactGradient wanted = all.pool().compact_gradient(),
                          found = alone.pool().compact_gradient();
    EXPECT_GT(found.values.abs().sum().item<double>(), 0);
    EXPECT_TRUE(same_bits(found.ids, wanted.ids));
    EXPECT_TRUE(same_bits(found.values, wanted.values));
    SparseOptimizer adam(alone.pool(), {});
    const ExpertValues before = alone.pool().experts_at(ids_of(0, 8, 8));
    adam.step();
    EXPECT_FALSE(same_values(alone.pool().experts_at(ids_of(0, 8, 8)), before));
    for (const at::Tensor& parameter : alone.parameters()) {
      EXPECT_FALSE(parameter.grad().defined());
    }
  }
}

TEST(ExpertGradients, AreOfTrainingUnlessAskedFor) {
  using enum ExpertGradients;
  struct Case {
    bool training;
    ExpertGradients when;
    bool left;
  };
  PeerOptions options = small_options();
  options.query_norm = QueryNorm::rms;  // the same in both modes
  std::vector<at::Tensor> router;
  at::Tensor dx;
  for (const auto& [training, when, left] :
       {Case{true, ExpertGradients::training, true}, Case{false, ExpertGradients::training, false},
        Case{true, always, true}, Case{false, always, true}, Case{true, never, false},
        Case{false, never, false}}) {
    SCOPED_TRACE(training ? "training" : "evaluation");
    PeerImpl peer(options);
    peer.train(training);
    peer.set_expert_gradients(when);
    at::Tensor x = inputs(1).requires_grad_();
    for (int i = 0; i < 2; ++i) peer.forward(x).square().sum().backward();
    EXPECT_EQ(peer.pool().compact_gradient().ids.numel() > 0, left);
    std::vector<at::Tensor> found;
    for (const at::Tensor& parameter : peer.parameters()) found.push_back(parameter.grad());
    if (!dx.defined()) {
      dx = x.grad();
      router = found;
    }
    EXPECT_TRUE(same_bits(x.grad(), dx));
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same_bits(found[i], router[i]));
  }
}

// As of parameters that are not among what is asked for.
TEST(ExpertGradients, AreNotLeftByAGradientOfOtherThings) {
  PeerImpl peer(small_options());
  at::Tensor x = inputs(1).requires_grad_();
  const at::Tensor dx = torch::autograd::grad({peer.forward(x).sum()}, {x})[0];
  EXPECT_GT(dx.abs().sum().item<double>(), 0);
  EXPECT_EQ(peer.pool().compact_gradient().ids.numel(), 0);
}

TEST(ExpertGradients, GoWithZeroGradOfTheModuleAround) {
  torch::nn::Module around;
  const auto peer = std::make_shared<PeerImpl>(small_options());
  around.register_module("peer", peer);
  backward(*peer, inputs(1));
  const at::Tensor memory = peer->pool().compact_gradient().values;
  EXPECT_GT(memory.size(0), 0);
  around.zero_grad();
  EXPECT_EQ(peer->pool().compact_gradient().ids.numel(), 0);
  for (const at::Tensor& parameter : peer->parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(Refusals, BackwardAfterAStepThatChangedTheExperts) {
  PeerOptions options = small_options();
  options.query_norm = QueryNorm::rms;
  PeerImpl peer(options);
  SparseOptimizer adam(peer.pool(), {});
  at::Tensor x = inputs(1).requires_grad_();
  const auto expect_refused = [&](const at::Tensor& y) {
    EXPECT_THAT(message_of<Error>([&] { y.sum().backward(); }), HasSubstr("before the step"));
    EXPECT_EQ(peer.pool().compact_gradient().ids.numel(), 0);
  };
  const at::Tensor before = peer.forward(x);
  peer.eval();
  const at::Tensor evaluated = peer.forward(x);
  peer.train();
  adam.step();  // without gradients: it changed nothing
  peer.forward(x).sum().backward();
  adam.step();
  expect_refused(before);
  expect_refused(evaluated);
  const at::Tensor compact = peer.forward(x);
  peer.forward(x).sum().backward();
  adam.step(peer.pool().compact_gradient());
  expect_refused(compact);
  // Steps of an open generation change nothing that a frozen one's graph has read.
  peer.freeze();
  peer.grow();
  const at::Tensor frozen = peer.forward(x, 0);
  peer.forward(x).sum().backward();
  adam.step();
  frozen.sum().backward();
}

TEST(Refusals, SecondDerivativeAndSecondBackward) {
  PeerImpl peer(small_options());
  at::Tensor x = inputs(1).requires_grad_();
  const at::Tensor y = peer.forward(x);
  EXPECT_THAT(message_of<c10::Error>([&] {
                (void)torch::autograd::grad({y.sum()}, {x}, {}, true, /*create_graph=*/true);
              }),
              HasSubstr("no second derivative"));
  EXPECT_EQ(peer.pool().compact_gradient().ids.numel(), 0) << "a refused backward left gradients";
  const at::Tensor z = peer.forward(x);
  z.sum().backward();
  EXPECT_ANY_THROW(z.sum().backward());
}

TEST(Refusals, NoGradientIsRecordedWithoutGradMode) {
  PeerImpl peer(small_options());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(peer.forward(inputs(1)).requires_grad());
}

}  // namespace
}  // namespace perennial
