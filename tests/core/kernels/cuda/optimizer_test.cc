// SPDX-License-Identifier: Apache-2.0
// Grouping of uses, compact gradients and updates on the device: the CPU's bits.
#include "perennial/kernels/cuda/optimizer.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "../inputs.h"
#include "../update_pool.h"
#include "device_testing.h"

namespace perennial::kernels::cuda {
namespace {

// What a pool's step reads, on the device.
struct DeviceStep {
  explicit DeviceStep(UpdatePool& pool)
      : ids(pool.ids), offsets(narrow(pool.offsets)), uses(pool.uses), experts(count(pool)) {
    for (int i = 0; i < 2; ++i) {
      x.push_back(std::make_unique<OnDevice<float>>(pool.x[i]));
      dy.push_back(std::make_unique<OnDevice<float>>(pool.dy[i]));
      c.push_back(std::make_unique<OnDevice<float>>(pool.c[i]));
    }
    std::vector<Contribution> list = pool.contributions();
    for (std::size_t i = 0; i < list.size(); ++i) {
      const float* host = list[i].cu;
      list[i].x = x[i]->data();
      list[i].dy = dy[i]->data();
      list[i].cv = c[i]->data() + (list[i].cv - host);
      if (list[i].cw != nullptr) list[i].cw = c[i]->data() + (list[i].cw - host);
      list[i].cu = c[i]->data();
    }
    contributions = std::make_unique<OnDevice<Contribution>>(list);
    args.rule = pool.rule;
    args.layout = pool.layout;
    args.ids = ids.data();
    args.experts = experts.data();
    args.most_experts = std::ssize(pool.ids) + 3;  // blocks that find nothing to do
    args.offsets = offsets.data();
    args.uses = uses.data();
    args.contributions = contributions->data();
  }
  static std::vector<std::uint32_t> narrow(const std::vector<std::size_t>& values) {
    return {values.begin(), values.end()};
  }
  static std::vector<std::uint32_t> count(const UpdatePool& pool) {
    return {static_cast<std::uint32_t>(pool.ids.size())};
  }

  OnDevice<std::int64_t> ids;
  OnDevice<std::uint32_t> offsets;
  OnDevice<Use> uses;
  OnDevice<std::uint32_t> experts;
  std::vector<std::unique_ptr<OnDevice<float>>> x, dy, c;
  std::unique_ptr<OnDevice<Contribution>> contributions;
  UpdateArgs args;
};

class CudaOptimizer : public CudaTest {};

TEST_F(CudaOptimizer, CompactGradientHasTheBitsOfTheCpu) {
  for (const ExpertLayout& layout : all_update_layouts()) {
    SCOPED_TRACE(layout.d_in);
    UpdatePool pool({}, layout);
    DeviceStep step(pool);
    const std::vector<float> expected = pool.rows();
    OnDevice<float> rows(expected.size());
    ASSERT_CUDA(compact_gradient(step.args, rows.data(), nullptr));
    expect_same_bits(rows.read(), expected);
  }
}

TEST_F(CudaOptimizer, UpdatesHaveTheBitsOfTheCpu) {
  for (const auto& [name, rule] : rule_cases()) {
    for (ExpertLayout layout : all_update_layouts()) {
      for (const bool by_rows : {false, true}) {
        SCOPED_TRACE(name + " " + std::to_string(layout.d_in) + (by_rows ? " rows" : " uses"));
        UpdatePool cpu(rule, layout), device(rule, layout);
        DeviceFrames weights(device.weight_table());
        std::unique_ptr<DeviceFrames> state;
        if (device.state_floats > 0) {
          state = std::make_unique<DeviceFrames>(device.state_table());
        }
        for (std::uint32_t t = 1; t <= 4; ++t) {
          cpu.draw(t);
          device.draw(t);
          cpu.update();
          DeviceStep step(device);
          OnDevice<float> rows(device.rows());
          if (by_rows) step.args.rows = rows.data();
          step.args.weights = weights.table();
          if (state != nullptr) step.args.state = state->table();
          ASSERT_CUDA(update_experts(step.args, nullptr));
          ASSERT_CUDA(cudaDeviceSynchronize());
        }
        weights.download();
        if (state != nullptr) state->download();
        expect_same_bits(device.weights, cpu.weights);
        expect_same_bits(device.state, cpu.state);
      }
    }
  }
}

TEST_F(CudaOptimizer, RefusesAdagradThatDoesNotFit) {
  UpdateArgs args;
  args.rule.algorithm = UpdateAlgorithm::rowwise_adagrad;
  args.layout = {kMostAdagradFloats, 16, false};
  args.most_experts = 1;
  const std::uint32_t offsets[2] = {};
  const Use use;
  args.offsets = offsets;
  args.uses = &use;
  EXPECT_EQ(update_experts(args, nullptr), kInvalidValue);
}

TEST_F(CudaOptimizer, GroupsUsesByExpert) {
  const OpenGeneration generation{5, 700, 900};
  for (const std::size_t n : {0u, 1u, 3u, 1000u, 300000u}) {
    SCOPED_TRACE(n);
    std::mt19937 engine(static_cast<std::uint32_t>(n));
    std::vector<std::int64_t> ids[2];
    std::map<std::uint64_t, std::vector<Use>> expected;
    for (std::uint32_t c = 0; c < 2; ++c) {
      for (std::size_t i = 0; i < n / 2 + (c == 0 ? n % 2 : 0); ++i) {
        const auto row = static_cast<std::uint32_t>(engine() % 720);  // some are not in it
        const auto col = static_cast<std::uint32_t>(engine() % 900);
        ids[c].push_back(expert_id(row, engine() % 4 == 0 ? 7 : col));
        if (row >= 5 && row < 705) {
          expected[static_cast<std::uint64_t>(ids[c].back())].push_back(
              {c, static_cast<std::uint32_t>(i)});
        }
      }
    }
    OnDevice<std::int64_t> first(ids[0]), second(ids[1]), unique(n);
    OnDevice<std::uint32_t> offsets(n + 1), experts(1);
    OnDevice<Use> uses(n);
    const std::size_t bytes = group_uses_workspace(static_cast<std::int64_t>(n), generation);
    ASSERT_GT(bytes, 0u);
    OnDevice<std::uint64_t> workspace(bytes / sizeof(std::uint64_t));
    const RetrievedIds from[2] = {{first.data(), std::ssize(ids[0])},
                                  {second.data(), std::ssize(ids[1])}};
    ASSERT_CUDA(group_uses(from, 2, generation, workspace.data(), bytes,
                           {unique.data(), offsets.data(), uses.data(), experts.data()}, nullptr));
    const auto found = experts.read()[0];
    ASSERT_EQ(found, expected.size());
    const auto found_ids = unique.read();
    const auto found_offsets = offsets.read();
    const auto found_uses = uses.read();
    EXPECT_EQ(found_offsets[0], 0u);
    std::size_t e = 0, place = 0;
    for (const auto& [id, list] : expected) {
      ASSERT_EQ(static_cast<std::uint64_t>(found_ids[e]), id);
      ASSERT_EQ(found_offsets[e], place);
      for (const Use& use : list) {
        ASSERT_EQ(found_uses[place].contribution, use.contribution);
        ASSERT_EQ(found_uses[place++].position, use.position);
      }
      ASSERT_EQ(found_offsets[++e], place);
    }
  }
}

}  // namespace
}  // namespace perennial::kernels::cuda
