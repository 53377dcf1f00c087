// SPDX-License-Identifier: Apache-2.0
// What a layer on a device takes and what it refuses: shapes and strides of x, types, devices,
// graphs that outlive the layer, mixed precision.
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <memory>
#include <string>

#include "device_testing.h"

namespace perennial::cuda {
namespace {

using testing::evaluate;
using ::testing::HasSubstr;
using testing::inputs;
using testing::message_of;
using testing::same_bits;
using testing::small_options;

class DeviceInputTest : public DeviceTest {
 protected:
  static PeerOptions normless() {
    PeerOptions options = small_options();
    options.query_norm = QueryNorm::none;
    return options;
  }
};

TEST_F(DeviceInputTest, TakesAnyShapeAndStride) {
  PeerImpl cpu(normless());
  const std::shared_ptr<PeerImpl> device = on_device(normless());
  const at::Tensor x = inputs(1, 8);
  const at::Tensor long_one = inputs(2, 8, 13);
  const at::Tensor odd = at::cat({at::zeros({1}), x.reshape({-1})});
  const at::Tensor on = to_device(odd);
  const std::vector<std::pair<at::Tensor, at::Tensor>> cases = {
      {x.view({2, 4, 12}), to_device(x).view({2, 4, 12})},
      {x[3], to_device(x)[3]},
      {x.t().contiguous().t(), to_device(x).t().contiguous().t()},
      {long_one.narrow(1, 1, 12), to_device(long_one).narrow(1, 1, 12)},
      {x.slice(0, 0, 8, 3), to_device(x).slice(0, 0, 8, 3)},
      // Starts at no multiple of 16 bytes.
      {odd.narrow(0, 1, 96).view({8, 12}), on.narrow(0, 1, 96).view({8, 12})},
      {x.slice(0, 0, 1), to_device(x).slice(0, 0, 1)}};
  for (const auto& [here, there] : cases) {
    SCOPED_TRACE(c10::str(here.sizes(), " ", here.strides()));
    at::Tensor a = here.detach().requires_grad_(), b = there.detach().requires_grad_();
    for (const auto& [peer, in] : {std::pair{&cpu, a}, std::pair{device.get(), b}}) {
      const at::Tensor y = peer->forward(in);
      y.backward(y.detach().transpose(0, -1).contiguous().transpose(0, -1));
    }
    expect_near(evaluate(*device, there), evaluate(cpu, here), "y");
    expect_near(b.grad(), a.grad(), "dx");
    const CompactGradient found = device->pool().compact_gradient(),
                          wanted = cpu.pool().compact_gradient();
    EXPECT_TRUE(same_bits(found.ids.cpu(), wanted.ids));
    expect_near(found.values, wanted.values, "gradient");
    device->pool().clear_gradients();
    cpu.pool().clear_gradients();
  }
}

TEST_F(DeviceInputTest, TakesEmptyBatches) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 1, 1);
  const std::uint64_t updated = experts.experts_updated();
  for (const std::vector<std::int64_t>& sizes :
       {std::vector<std::int64_t>{0, 12}, std::vector<std::int64_t>{3, 0, 12}}) {
    const at::Tensor x = to_device(at::empty(sizes));
    for (const bool training : {false, true}) {
      peer->train(training);
      const at::Tensor y = peer->forward(x);
      EXPECT_EQ(y.device(), device_under_test());
      EXPECT_EQ(y.size(-1), 6);
      EXPECT_EQ(y.numel(), 0);
    }
    const PeerImpl::Retrieval none = peer->retrieve(x, 0);
    EXPECT_EQ(none.ids.device(), device_under_test());
    EXPECT_EQ(none.ids.sizes(), (std::vector<std::int64_t>{0, 2, 3}));
  }
  EXPECT_EQ(peer->pool().compact_gradient().ids.numel(), 0);
  experts.step();
  experts.step(peer->pool().compact_gradient());
  EXPECT_EQ(experts.experts_updated(), updated);
}

TEST_F(DeviceInputTest, RefusesOtherTypesWidthsAndDevices) {
  const std::shared_ptr<PeerImpl> device = on_device(small_options());
  PeerImpl cpu(small_options());
  const std::string name = device_under_test().str();
  const at::Tensor x = inputs(1);
  const auto said = [&](PeerImpl& peer, const at::Tensor& in) {
    const std::string message = message_of<Error>([&] { (void)peer.forward(in); });
    EXPECT_EQ(message_of<Error>([&] { (void)peer.retrieve(in, 0); }), message);
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  };
  EXPECT_THAT(said(*device, x), HasSubstr("expects " + name + " float32 (..., 12)"));
  EXPECT_THAT(said(*device, x), HasSubstr("on cpu"));
  EXPECT_THAT(said(cpu, to_device(x)), HasSubstr("on " + name));
  EXPECT_THAT(said(*device, to_device(x).to(at::kDouble)), HasSubstr("Double"));
  EXPECT_THAT(said(*device, to_device(x).to(at::kBFloat16)), HasSubstr("BFloat16"));
  EXPECT_THAT(said(*device, to_device(x).narrow(1, 0, 11)), HasSubstr("[8, 11]"));
  device->train();
  EXPECT_THAT(message_of<Error>([&] { (void)device->forward(to_device(x).narrow(0, 0, 1)); }),
              HasSubstr("batch norm needs at least 2 tokens"));
}

// Module::to() knows nothing of the experts.
TEST_F(DeviceInputTest, RefusesALayerWhoseRoutersWereMovedAlone) {
  PeerImpl peer(small_options());
  peer.to(device_under_test());
  for (const at::Tensor& x : {inputs(1), to_device(inputs(1))}) {
    EXPECT_THAT(message_of<Error>([&] { (void)peer.forward(x); }), HasSubstr("place_on()"));
  }
  place_layer(peer, device_under_test());
  EXPECT_EQ(evaluate(peer, to_device(inputs(1))).size(0), 8);
}

TEST_F(DeviceInputTest, WhatABackwardGotMayBeFilledAgainBeforeTheStep) {
  const std::shared_ptr<PeerImpl> kept = on_device(small_options()),
                                  filled = on_device(small_options());
  const at::Tensor x = to_device(inputs(1)), dy = to_device(inputs(2, 8, 6)).contiguous();
  kept->forward(x).backward(dy);
  const at::Tensor wanted = kept->pool().compact_gradient().values.cpu();
  filled->forward(x).backward(dy);
  x.zero_();
  dy.zero_();
  EXPECT_TRUE(same_bits(filled->pool().compact_gradient().values.cpu(), wanted));
}

TEST_F(DeviceInputTest, RefusesASecondDerivative) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  const at::Tensor x = to_device(inputs(1)).requires_grad_();
  const at::Tensor y = peer->forward(x);
  EXPECT_THAT(message_of<c10::Error>([&] {
                torch::autograd::grad({y}, {x}, {at::ones_like(y)}, /*retain_graph=*/true,
                                      /*create_graph=*/true);
              }),
              HasSubstr("no second derivative"));
}

TEST_F(DeviceInputTest, AnswersInInferenceMode) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  const at::Tensor x = to_device(inputs(1));
  const at::Tensor expected = evaluate(*peer, x);
  peer->eval();
  const c10::InferenceMode inference;
  EXPECT_TRUE(same_bits(peer->forward(x).cpu(), expected.cpu()));
}

TEST_F(DeviceInputTest, ExpertsAloneMayTrain) {
  const std::shared_ptr<PeerImpl> all = on_device(small_options()),
                                  alone = on_device(small_options());
  for (at::Tensor& parameter : alone->parameters()) parameter.requires_grad_(false);
  const at::Tensor x = to_device(inputs(1));
  for (const auto& peer : {all, alone}) peer->forward(x).square().sum().backward();
  const CompactGradient wanted = all->pool().compact_gradient(),
                        found = alone->pool().compact_gradient();
  EXPECT_GT(found.ids.numel(), 0);
  EXPECT_TRUE(same_bits(found.ids.cpu(), wanted.ids.cpu()));
  EXPECT_TRUE(same_bits(found.values.cpu(), wanted.values.cpu()));
  alone->zero_grad();
  EXPECT_EQ(alone->pool().compact_gradient().ids.numel(), 0);
}

TEST_F(DeviceInputTest, LeavesExpertsGradientsOfTrainingUnlessAskedForOthers) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  const auto left = [&](bool training, ExpertGradients when) {
    peer->zero_grad();
    peer->train(training);
    peer->set_expert_gradients(when);
    const at::Tensor x = to_device(inputs(1)).requires_grad_();
    peer->forward(x).sum().backward();
    EXPECT_TRUE(x.grad().defined());
    return peer->pool().compact_gradient().ids.numel() > 0;
  };
  EXPECT_TRUE(left(true, ExpertGradients::training));
  EXPECT_FALSE(left(false, ExpertGradients::training));
  EXPECT_TRUE(left(false, ExpertGradients::always));
  EXPECT_FALSE(left(true, ExpertGradients::never));
}

TEST_F(DeviceInputTest, RefusesABackwardAfterAStepThatChangedTheExperts) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  SparseOptimizer experts(peer->pool(), {});
  const at::Tensor x = to_device(inputs(1)).requires_grad_();
  for (const bool compact : {false, true}) {
    const at::Tensor y = peer->forward(x);
    experts.step();  // without gradients: it changed nothing
    experts.step(peer->pool().compact_gradient());
    peer->forward(x).sum().backward();
    if (compact) {
      experts.step(peer->pool().compact_gradient());
    } else {
      experts.step();
    }
    EXPECT_THAT(message_of<Error>([&] { y.sum().backward(); }), HasSubstr("before the step"));
  }
}

TEST_F(DeviceInputTest, AGraphMayOutliveItsLayer) {
  std::shared_ptr<PeerImpl> peer = on_device(small_options()), twin = on_device(small_options());
  const at::Tensor x = to_device(inputs(1)).requires_grad_(),
                   same = to_device(inputs(1)).requires_grad_();
  const at::Tensor y = peer->forward(x);
  peer.reset();
  y.sum().backward();
  twin->forward(same).sum().backward();
  EXPECT_TRUE(same_bits(x.grad().cpu(), same.grad().cpu()));
}

TEST_F(DeviceInputTest, ABackwardIsRefusedOnceTheLayerHasLeft) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  const at::Tensor x = to_device(inputs(1)).requires_grad_();
  const at::Tensor y = peer->forward(x);
  to_host(*peer);
  EXPECT_THAT(message_of<Error>([&] { y.sum().backward(); }), HasSubstr("the layer left"));
  const at::Tensor here = inputs(1).requires_grad_();
  const at::Tensor on_cpu = peer->forward(here);
  place_layer(*peer, device_under_test());
  EXPECT_THAT(message_of<Error>([&] { on_cpu.sum().backward(); }), HasSubstr("the layer left"));
  // Being back is not having stayed: the experts' gradients would wait where nobody steps.
  const at::Tensor before = peer->forward(to_device(inputs(2)));
  place_layer(*peer, device_under_test());
  EXPECT_THAT(message_of<Error>([&] { before.sum().backward(); }), HasSubstr("the layer left"));
}

// Scores and experts stay in float32 whatever the layers around compute in.
TEST_F(DeviceInputTest, MixedPrecisionAroundItChangesNothing) {
  const std::shared_ptr<PeerImpl> peer = on_device(small_options());
  const at::Tensor x = to_device(inputs(1));
  const at::Tensor expected = evaluate(*peer, x);
  const PeerImpl::Retrieval wanted = peer->retrieve(x, 0);
  const auto type = device_under_test().type();
  at::autocast::set_autocast_dtype(type, at::kBFloat16);
  at::autocast::set_autocast_enabled(type, true);
  const at::Tensor cast = at::linear(x, at::ones_like(x));
  at::Tensor found;
  PeerImpl::Retrieval retrieved;
  try {
    found = evaluate(*peer, x);
    retrieved = peer->retrieve(x, 0);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  at::autocast::set_autocast_enabled(type, false);
  at::autocast::clear_cache();
  EXPECT_EQ(cast.scalar_type(), at::kBFloat16);
  ASSERT_TRUE(found.defined() && retrieved.ids.defined());
  EXPECT_TRUE(same_bits(found.cpu(), expected.cpu()));
  EXPECT_TRUE(same_bits(retrieved.scores.cpu(), wanted.scores.cpu()));
}

}  // namespace
}  // namespace perennial::cuda
