// SPDX-License-Identifier: Apache-2.0
// The layer on a device beside the layer on the CPU: one table of cases, over training steps,
// growth and freezing.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/layered_model.h"
#include "device_testing.h"

namespace perennial::cuda {
namespace {

using testing::evaluate;
using testing::ids_of;
using testing::inputs;
using testing::LayeredModel;
using testing::message_of;
using testing::same_bits;
using testing::same_values;
using testing::small_options;
using testing::train;

struct LayerCase {
  std::string name;
  std::function<void(PeerOptions&)> change;
  SparseOptimizerOptions rule = {};
};

std::vector<LayerCase> cases() {
  using kernels::Activation;
  using kernels::ScoreFunction;
  return {
      {"plain", [](PeerOptions&) {}},
      {"shared", [](PeerOptions& o) { o.routing = Routing::shared; }},
      {"common_keys", [](PeerOptions& o) { o.sub_keys = SubKeys::common; }},
      {"layer_norm", [](PeerOptions& o) { o.query_norm = QueryNorm::layer; }},
      {"rms_norm", [](PeerOptions& o) { o.query_norm = QueryNorm::rms; }},
      {"no_norm", [](PeerOptions& o) { o.query_norm = QueryNorm::none; }},
      {"glu_wide",
       [](PeerOptions& o) {
         o.glu = true;
         o.expert_width = 3;
       }},
      {"bf16", [](PeerOptions& o) { o.dtype = kernels::WeightType::bf16; }},
      {"dropout", [](PeerOptions& o) { o.dropout = 0.3; }},
      {"sigmoid_silu",
       [](PeerOptions& o) {
         o.score = ScoreFunction::sigmoid;
         o.activation = Activation::silu;
       }},
      {"identity_relu",
       [](PeerOptions& o) {
         o.score = ScoreFunction::identity;
         o.activation = Activation::relu;
       }},
      {"sgd", [](PeerOptions&) {}, {.algorithm = SparseAlgorithm::sgd, .lr = 0.1}},
      {"adagrad", [](PeerOptions&) {}, {.algorithm = SparseAlgorithm::rowwise_adagrad, .lr = 0.1}},
      {"large_adagrad",
       [](PeerOptions& o) {
         o.d_in = 6000;
         o.d_out = 6000;
         o.v_scale = 0.01;
       },
       {.algorithm = SparseAlgorithm::rowwise_adagrad, .lr = 0.01}},
  };
}

class DeviceLayerTest : public DeviceTest {};

TEST_F(DeviceLayerTest, LearnsAsTheCpuDoes) {
  for (const LayerCase& item : cases()) {
    SCOPED_TRACE(item.name);
    PeerOptions options = small_options();
    item.change(options);
    PeerImpl cpu(options);
    const std::shared_ptr<PeerImpl> device = on_device(options);
    SparseOptimizer cpu_experts(cpu.pool(), item.rule), experts(device->pool(), item.rule);
    for (std::uint64_t step = 0; step < 3; ++step) {
      const at::Tensor x = inputs(step, 8, options.d_in);
      at::Tensor cpu_x = x.clone(), device_x = to_device(x.clone());
      cpu_x.requires_grad_();
      device_x.requires_grad_();
      testing::train_step(cpu, cpu_experts, cpu_x);
      testing::train_step(*device, experts, device_x);
      expect_near(device_x.grad(), cpu_x.grad(), "dx");
      const auto expected = cpu.trainable(), found = device->trainable();
      ASSERT_EQ(found.size(), expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_EQ(found[i].first, expected[i].first);
        expect_near(found[i].second.grad(), expected[i].second.grad(), found[i].first.c_str());
      }
    }
    EXPECT_EQ(experts.experts_updated(), cpu_experts.experts_updated());
    const at::Tensor x = inputs(77, 8, options.d_in);
    expect_near(evaluate(*device, to_device(x)), evaluate(cpu, x), "y");
    const auto ids = ids_of(cpu.pool().generation(0));
    const ExpertValues expected = cpu.pool().experts_at(ids),
                       found = device->pool().experts_at(ids);
    expect_near(found.u, expected.u, "u");
    expect_near(found.v, expected.v, "v");
    const auto retrieved = device->retrieve(to_device(x), 0), wanted = cpu.retrieve(x, 0);
    EXPECT_TRUE(same_bits(retrieved.ids.cpu(), wanted.ids));
    expect_near(retrieved.weights, wanted.weights, "weights");
  }
}

// Another order of summation may round a query to the other side: a part in 256.
TEST_F(DeviceLayerTest, MixedPrecisionIsNearTheCpus) {
  constexpr double kRounding = 1.0 / 64;
  for (const QueryNorm norm : {QueryNorm::none, QueryNorm::batch, QueryNorm::layer}) {
    PeerOptions options = small_options();
    options.query_norm = norm;
    PeerImpl cpu(options);
    const std::shared_ptr<PeerImpl> device = on_device(options);
    const at::Tensor x = inputs(4, 8, options.d_in);
    const at::Tensor whole = evaluate(*device, to_device(x)).cpu();
    cpu.set_amp(Amp::bf16);
    device->set_amp(Amp::bf16);
    const at::Tensor y = evaluate(*device, to_device(x)).cpu();
    EXPECT_FALSE(same_bits(y, whole));
    const auto near = [&](const at::Tensor& found, const at::Tensor& expected, const char* what) {
      EXPECT_LE((found.cpu() - expected).abs().max().item<double>(),
                kRounding * expected.abs().max().item<double>())
          << what;
    };
    near(y, evaluate(cpu, x), "y");
    const auto found = device->retrieve(to_device(x), 0), expected = cpu.retrieve(x, 0);
    EXPECT_TRUE(same_bits(found.ids.cpu(), expected.ids));
    near(found.scores, expected.scores, "scores");
    testing::backward(cpu, x);
    testing::backward(*device, to_device(x));
    const auto wanted = cpu.trainable(), had = device->trainable();
    for (std::size_t i = 0; i < had.size(); ++i) {
      near(had[i].second.grad(), wanted[i].second.grad(), had[i].first.c_str());
    }
  }
}

TEST_F(DeviceLayerTest, GrowsAndFreezes) {
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    PeerOptions options = small_options();
    options.routing = routing;
    const std::shared_ptr<PeerImpl> peer = on_device(options);
    SparseOptimizer experts(peer->pool(), {});
    const at::Tensor x = to_device(inputs(5));
    train_on_device(*peer, experts, 3, 1);
    peer->freeze();
    const at::Tensor frozen = evaluate(*peer, x);
    const auto ids = ids_of(peer->pool().generation(0));
    const ExpertValues values = peer->pool().experts_at(ids);
    peer->grow();
    EXPECT_EQ(peer->trainable().front().second.device(), device_under_test());
    if (routing == Routing::isolated) {
      train_on_device(*peer, experts, 3, 2);
      const torch::NoGradGuard no_grad;
      peer->eval();
      EXPECT_TRUE(same_bits(peer->forward(x, 0).cpu(), frozen.cpu()));
      peer->train();
    } else {
      EXPECT_TRUE(same_bits(evaluate(*peer, x).cpu(), frozen.cpu())) << "new rows are masked";
      peer->unmask();
      train_on_device(*peer, experts, 3, 2);
    }
    peer->grow_columns(5);
    peer->unmask();
    train_on_device(*peer, experts, 2, 3);
    EXPECT_TRUE(same_values(peer->pool().experts_at(ids), values));
    EXPECT_TRUE(peer->frozen_intact());
    peer->freeze();
    const at::Tensor last = evaluate(*peer, x);
    to_host(*peer);
    EXPECT_TRUE(peer->frozen_intact());
    expect_near(last, evaluate(*peer, x.cpu()), "the same layer on the CPU");
  }
}

TEST_F(DeviceLayerTest, StepsWithACompactGradientAsWithout) {
  const std::shared_ptr<PeerImpl> a = on_device(small_options()), b = on_device(small_options());
  SparseOptimizer for_a(a->pool(), {}), for_b(b->pool(), {});
  for (std::uint64_t step = 0; step < 3; ++step) {
    for (const auto& peer : {a, b}) {
      testing::backward(*peer, to_device(inputs(step)));
      testing::backward(*peer, to_device(inputs(step + 10)));
    }
    for_a.step();
    const CompactGradient gradient = b->pool().compact_gradient();
    EXPECT_EQ(gradient.values.device(), device_under_test());
    EXPECT_GT(gradient.ids.numel(), 6);
    for_b.step(gradient);
  }
  const auto ids = ids_of(a->pool().generation(0));
  EXPECT_TRUE(same_values(a->pool().experts_at(ids), b->pool().experts_at(ids)));
  EXPECT_EQ(a->pool().compact_gradient().ids.numel(), 0);
}

TEST_F(DeviceLayerTest, SeveralLayersLearnAsOnTheCpu) {
  LayeredModel host(nullptr, 0), there(nullptr, 0);
  place_layers(there.layers, device_under_test());
  const at::Tensor x = inputs(3, 16, 8);
  for (int generation = 0; generation < 2; ++generation) {
    if (generation > 0) {
      host.grow();
      there.grow();
    }
    host.train(3, 1);
    there.train(3, 1);
    const auto g = static_cast<std::uint32_t>(generation);
    expect_near(there.answer(x, g), host.answer(x, g), "y");
    host.layers.freeze();
    there.layers.freeze();
    EXPECT_TRUE(there.layers.frozen_intact());
  }
  const storage::Digest digest = there.layers.digest(0);
  to_host(there.layers);
  EXPECT_TRUE(there.layers.frozen_intact());
  EXPECT_EQ(there.layers.digest(0), digest);
}

TEST_F(DeviceLayerTest, RefusesWhatTheKernelsCannotServe) {
  PeerOptions options = small_options();
  options.rows = 16;
  options.cols = 16;
  options.top_k = 129;
  PeerImpl peer(options);
  EXPECT_THAT(message_of<InvalidOptions>([&] { place_layer(peer, device_under_test()); }),
              ::testing::HasSubstr("top_k is 129"));
  EXPECT_EQ(evaluate(peer, inputs(1)).size(0), 8) << "still on the CPU";
}

}  // namespace
}  // namespace perennial::cuda
