// SPDX-License-Identifier: Apache-2.0
// Grouping of uses against a plain sort, over grids of every width.
#include <algorithm>
#include <random>
#include <tuple>

#include "core/core_testing.h"
#include "pool/tape.h"

namespace perennial {
namespace {

using namespace perennial::testing;

struct Grid {
  std::uint32_t first_row, rows, cols;
};

TEST(ExpertTape, GroupsUsesAsASortDoes) {
  // From keys of no bit at all to keys of 64 bits: one pass to six.
  const std::vector<Grid> grids{{0, 1, 1},           {5, 8, 8},
                                {0, 3, 1000},        {100, 1u << 20, 1u << 12},
                                {0, 1, 4294967295u}, {7, 4294967280u, 4294967295u}};
  // By row and column, also where a row number makes the id negative.
  const auto order = [](const auto& a, const auto& b) {
    const auto key = [](const auto& use) {
      return std::tuple(static_cast<std::uint64_t>(std::get<0>(use)), std::get<1>(use),
                        std::get<2>(use));
    };
    return key(a) < key(b);
  };
  for (const Grid& grid : grids) {
    SCOPED_TRACE(std::to_string(grid.rows) + " x " + std::to_string(grid.cols));
    Generation generation;
    generation.first_row = grid.first_row;
    generation.rows = grid.rows;
    generation.cols = grid.cols;
    std::mt19937 engine(1);
    const auto random = [&engine] { return static_cast<std::uint32_t>(engine()); };
    // Few values, the largest among them, so that experts have several uses.
    const auto below = [&](std::uint32_t end) {
      const std::uint32_t from_end = random() % 3;
      if (random() % 2 == 0) return end - 1 - std::min(end - 1, from_end);
      return std::min(end - 1, random() % 7 * (end / 7 + 1));
    };
    ExpertTape tape;
    std::vector<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>> expected;
    for (std::uint32_t backward = 0; backward < 3; ++backward) {
      const std::int64_t tokens = backward == 1 ? 0 : 40, slots = 5;
      const at::Tensor ids = at::empty({tokens, slots}, at::kLong);
      for (std::int64_t i = 0; i < ids.numel(); ++i) {
        std::int64_t id = kernels::expert_id(grid.first_row + below(grid.rows), below(grid.cols));
        // Frozen rows before the generation are left out.
        if (grid.first_row > 0 && random() % 4 == 0) id = kernels::expert_id(0, 0);
        ids.mutable_data_ptr<std::int64_t>()[i] = id;
        if (kernels::row_of(id) < grid.first_row) continue;
        expected.emplace_back(id, backward, static_cast<std::uint32_t>(i));
      }
      const at::Tensor rows = at::ones({tokens, 2}), values = at::ones({tokens, slots});
      tape.add({slots, ids, rows, rows, values, values, at::Tensor()});
    }
    std::sort(expected.begin(), expected.end(), order);
    const ExpertUses uses = tape.uses(generation);
    ASSERT_EQ(uses.offsets.size(), uses.ids.size() + 1);
    ASSERT_EQ(uses.contributions.size(), 3u);
    std::vector<std::tuple<std::int64_t, std::uint32_t, std::uint32_t>> found;
    for (std::size_t e = 0; e < uses.ids.size(); ++e) {
      EXPECT_TRUE(e == 0 || uses.ids[e - 1] != uses.ids[e]);
      EXPECT_FALSE(uses.of(e).empty());
      for (const kernels::Use& use : uses.of(e)) {
        found.emplace_back(uses.ids[e], use.contribution, use.position);
      }
    }
    EXPECT_EQ(found, expected);
    tape.clear();
    EXPECT_TRUE(tape.uses(generation).ids.empty());
  }
}

// A caller may fill its buffers again between the backward and the step, as one does that
// accumulates gradients over micro-batches.
TEST(ExpertTape, InputsMayBeOverwrittenBeforeTheStep) {
  PeerImpl reused(small_options()), fresh(small_options());
  SparseOptimizer a(reused.pool(), {.lr = 0.03}), b(fresh.pool(), {.lr = 0.03});
  at::Tensor x = at::empty({8, 12}), dy = at::empty({8, 6});
  for (std::uint64_t micro = 0; micro < 3; ++micro) {
    x.copy_(inputs(micro));
    dy.copy_(inputs(micro + 10, 8, 6));
    reused.forward(x).backward(dy);
    fresh.forward(inputs(micro)).backward(inputs(micro + 10, 8, 6));
  }
  x.zero_();
  dy.zero_();
  a.step();
  b.step();
  EXPECT_TRUE(same_values(reused.pool().experts_at(ids_of(0, 8, 8)),
                          fresh.pool().experts_at(ids_of(0, 8, 8))));
}

// Gradients that are not contiguous, as sum() gives them.
TEST(ExpertTape, TakesExpandedGradients) {
  PeerImpl expanded(small_options()), dense(small_options());
  SparseOptimizer a(expanded.pool(), {.lr = 0.03}), b(dense.pool(), {.lr = 0.03});
  expanded.forward(inputs(1)).sum().backward();
  dense.forward(inputs(1)).backward(at::ones({8, 6}));
  a.step();
  b.step();
  EXPECT_TRUE(same_values(expanded.pool().experts_at(ids_of(0, 8, 8)),
                          dense.pool().experts_at(ids_of(0, 8, 8))));
}

}  // namespace
}  // namespace perennial
