// SPDX-License-Identifier: Apache-2.0
// Experts, scores and dropout on the device against the CPU kernels: by their bits where no
// library function takes part (ReLU, identity), to rounding elsewhere.
#include "perennial/kernels/cuda/experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../expert_pool.h"
#include "../inputs.h"
#include "device_testing.h"
#include "perennial/kernels/experts.h"

namespace perennial::kernels::cuda {
namespace {

// The two libraries' exp and erf differ in their last bit of a double, so an activation differs by
// at most an fp32 rounding; sums of `terms` such values of size 1 differ by a little more each.
double tolerance(std::int64_t terms) { return 1e-6 * static_cast<double>(1 + terms); }

bool exact(Activation activation) {
  return activation == Activation::relu || activation == Activation::identity;
}

void expect_close(const std::vector<float>& actual, const std::vector<float>& expected,
                  bool same_bits, std::int64_t terms) {
  if (same_bits) {
    expect_same_bits(actual, expected);
  } else {
    expect_near(actual, expected, tolerance(terms));
  }
}

class CudaExperts : public CudaTest {};

TEST_F(CudaExperts, AgreeWithTheCpu) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name + " " + std::to_string(static_cast<int>(shape.activation)));
    ExpertPool pool(shape);
    pool.forward(0, shape.tokens);
    pool.backward(0, shape.tokens);
    DeviceFrames frames(pool.args().frames);
    OnDevice<std::int64_t> ids(pool.ids);
    OnDevice<float> weights(pool.weights), x(pool.x), dy(pool.dy);
    OnDevice<float> coefficients(pool.pre.size()), y(pool.y.size()), pre(pool.pre.size()),
        gate(pool.gate.size()), dx(pool.dx.size()), dweights(pool.dweights.size()),
        cu(pool.cu.size()), cv(pool.cv.size()), cw(pool.cw.size());
    ExpertArgs args;
    args.layout = shape.layout;
    args.activation = shape.activation;
    args.frames = frames.table();
    args.slots = shape.slots;
    args.ids = ids.data();
    args.weights = weights.data();
    args.x = x.data();
    float* const gate_or_null = shape.layout.glu ? gate.data() : nullptr;
    float* const cw_or_null = shape.layout.glu ? cw.data() : nullptr;
    ASSERT_CUDA(experts_forward(args, shape.tokens, coefficients.data(), y.data(), pre.data(),
                                gate_or_null, nullptr));
    ASSERT_CUDA(experts_backward_tokens(args, shape.tokens, pre.data(), gate_or_null, dy.data(),
                                        dx.data(), dweights.data(), cu.data(), cv.data(),
                                        cw_or_null, nullptr));
    ASSERT_CUDA(cudaDeviceSynchronize());
    const bool same = exact(shape.activation);
    const std::int64_t terms = shape.slots * shape.layout.width;
    expect_same_bits(pre.read(), pool.pre);
    expect_same_bits(gate.read(), pool.gate);
    expect_close(y.read(), pool.y, same, terms);
    const std::int64_t size = shape.layout.d_out;
    expect_close(dweights.read(), pool.dweights, same, size);
    expect_close(cu.read(), pool.cu, same, size);
    expect_close(cv.read(), pool.cv, same, size);
    expect_close(cw.read(), pool.cw, same, size);
    expect_close(dx.read(), pool.dx, same, size + terms);
  }
}

TEST_F(CudaExperts, WithoutInputGradient) {
  ExpertPool pool({"no_dx", 3, 5, {8, 8, false}, Activation::relu});
  pool.forward(0, 3);
  pool.backward(0, 3);
  DeviceFrames frames(pool.args().frames);
  OnDevice<std::int64_t> ids(pool.ids);
  OnDevice<float> weights(pool.weights), x(pool.x), dy(pool.dy), pre(pool.pre),
      dweights(pool.dweights.size()), cu(pool.cu.size()), cv(pool.cv.size());
  ExpertArgs args;
  args.layout = pool.shape.layout;
  args.activation = Activation::relu;
  args.frames = frames.table();
  args.slots = 5;
  args.ids = ids.data();
  args.weights = weights.data();
  args.x = x.data();
  ASSERT_CUDA(experts_backward_tokens(args, 3, pre.data(), nullptr, dy.data(), nullptr,
                                      dweights.data(), cu.data(), cv.data(), nullptr, nullptr));
  expect_same_bits(cu.read(), pool.cu);
  EXPECT_EQ(experts_backward_tokens(args, 3, pre.data(), x.data(), dy.data(), nullptr,
                                    dweights.data(), cu.data(), cv.data(), nullptr, nullptr),
            kInvalidValue)
      << "a gate without GLU";
}

TEST_F(CudaExperts, ScoresAgreeWithTheCpu) {
  for (const ScoreFunction function : kScoreFunctions) {
    for (const std::int64_t k : {1, 2, 16, 17, 128}) {
      const std::int64_t tokens = 40, heads = 3;
      auto values = uniform(tokens * heads * k, 1);
      for (float& value : values) value *= 10;
      const auto gradient = uniform(tokens * heads * k, 2);
      std::vector<float> expected(values.size()), expected_dscores(values.size());
      kernels::score_forward(function, heads, k, values.data(), expected.data(), 0, tokens);
      kernels::score_backward(function, heads, k, expected.data(), gradient.data(),
                              expected_dscores.data(), 0, tokens);
      OnDevice<float> scores(values), dweights(gradient), weights(values.size()),
          dscores(values.size());
      ASSERT_CUDA(
          score_forward(function, heads, k, scores.data(), weights.data(), tokens, nullptr));
      ASSERT_CUDA(score_backward(function, heads, k, weights.data(), dweights.data(),
                                 dscores.data(), tokens, nullptr));
      expect_near(weights.read(), expected, 1e-6);
      expect_near(dscores.read(), expected_dscores, 1e-6);
    }
  }
}

TEST_F(CudaExperts, DropoutDropsTheSame) {
  for (const double p : {0.0, 0.25, 0.9}) {
    const auto values = uniform(4003, 1);
    std::vector<float> expected(values.size());
    kernels::dropout(7, 0x123456789abcull, p, values.data(), expected.data(), 0, 4003);
    OnDevice<float> in(values), out(values.size());
    ASSERT_CUDA(dropout(7, 0x123456789abcull, p, in.data(), out.data(), 4003, nullptr));
    expect_same_bits(out.read(), expected);
  }
}

}  // namespace
}  // namespace perennial::kernels::cuda
