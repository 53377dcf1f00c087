// SPDX-License-Identifier: Apache-2.0
// More experts than a grid has blocks: what a block shares about one expert must not be the next's.
#include <gtest/gtest.h>

#include <vector>

#include "../inputs.h"
#include "device_testing.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/optimizer.h"

namespace perennial::kernels::cuda {
namespace {

constexpr std::uint32_t kExperts = 40000, kTile = 8, kTiles = kExperts / kTile;
constexpr std::int64_t kSlots = 4, kTokens = 300;
const ExpertLayout kLayout{4, 4, false};

// One row of experts on pages, and one backward whose uses are dealt out to them.
struct Many {
  Many()
      : state_floats(update_state_floats(rule, kLayout)),
        weights(uniform(kExperts * kLayout.record_floats(), 1)),
        state(static_cast<std::size_t>(kExperts * state_floats)),
        x(uniform(kTokens * kLayout.d_in, 2)),
        dy(uniform(kTokens * kLayout.d_out, 3)),
        c(uniform(2 * kTokens * kSlots, 4)) {
    for (std::uint32_t page = 0; page < kTiles; ++page) {
      weight_frames.push_back(weights.data() + page * kTile * kLayout.record_floats());
      state_frames.push_back(state.data() + page * kTile * state_floats);
    }
    for (std::uint32_t e = 0; e < kExperts; ++e) {
      ids.push_back(expert_id(0, e));
      const std::uint32_t count = e % 97 == 0 ? 40 : 1 + e % 3;  // 40: more than a block stages
      for (std::uint32_t i = 0; i < count; ++i) {
        uses.push_back({0, (e * 31 + i * 7) % static_cast<std::uint32_t>(kTokens * kSlots)});
      }
      offsets.push_back(uses.size());
    }
  }
  Contribution contribution(const float* tokens, const float* gradients,
                            const float* factors) const {
    return {kSlots, tokens, gradients, factors, factors + kTokens * kSlots, nullptr};
  }
  FrameTable weight_table() { return {{&weight_span, 1}, kTile, kLayout.record_floats()}; }
  FrameTable state_table() { return {{&state_span, 1}, kTile, state_floats}; }

  UpdateRule rule{.algorithm = UpdateAlgorithm::adam, .lr = 0.01};
  std::int64_t state_floats;
  std::vector<float> weights, state, x, dy, c;
  std::vector<float*> weight_frames, state_frames;
  PageSpan weight_span{0, 1, kTiles, nullptr}, state_span{0, 1, kTiles, nullptr};
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> offsets{0};
  std::vector<Use> uses;
};

class CudaManyExperts : public CudaTest {};

TEST_F(CudaManyExperts, GradientsAndUpdatesHaveTheBitsOfTheCpu) {
  Many cpu, device;
  for (Many* many : {&cpu, &device}) {
    many->weight_span.frames = many->weight_frames.data();
    many->state_span.frames = many->state_frames.data();
  }
  const std::vector<Contribution> from = {
      cpu.contribution(cpu.x.data(), cpu.dy.data(), cpu.c.data())};
  std::vector<float> expected, one(static_cast<std::size_t>(kLayout.stride()));
  for (std::size_t i = 0; i < cpu.ids.size(); ++i) {
    expert_gradient(
        kLayout, from,
        std::span(cpu.uses).subspan(cpu.offsets[i], cpu.offsets[i + 1] - cpu.offsets[i]),
        one.data());
    expected.insert(expected.end(), one.begin(), one.begin() + kLayout.used());
  }
  kernels::update_experts({.rule = cpu.rule,
                           .layout = kLayout,
                           .weights = cpu.weight_table(),
                           .state = cpu.state_table(),
                           .ids = cpu.ids,
                           .rows = nullptr,
                           .offsets = cpu.offsets,
                           .uses = cpu.uses,
                           .contributions = from},
                          0, kExperts, one.data());

  OnDevice<float> x(device.x), dy(device.dy), c(device.c), rows(expected.size());
  OnDevice<std::int64_t> ids(device.ids);
  OnDevice<std::uint32_t> offsets({device.offsets.begin(), device.offsets.end()});
  OnDevice<std::uint32_t> experts(std::vector<std::uint32_t>{kExperts});
  OnDevice<Use> uses(device.uses);
  OnDevice<Contribution> contributions(
      std::vector<Contribution>{device.contribution(x.data(), dy.data(), c.data())});
  DeviceFrames weights(device.weight_table()), state(device.state_table());
  UpdateArgs args;
  args.rule = device.rule;
  args.layout = kLayout;
  args.weights = weights.table();
  args.state = state.table();
  args.ids = ids.data();
  args.experts = experts.data();
  args.most_experts = kExperts;
  args.offsets = offsets.data();
  args.uses = uses.data();
  args.contributions = contributions.data();
  ASSERT_CUDA(compact_gradient(args, rows.data(), nullptr));
  expect_same_bits(rows.read(), expected);
  ASSERT_CUDA(update_experts(args, nullptr));
  ASSERT_CUDA(cudaDeviceSynchronize());
  weights.download();
  state.download();
  expect_same_bits(device.weights, cpu.weights);
  expect_same_bits(device.state, cpu.state);
}

}  // namespace
}  // namespace perennial::kernels::cuda
