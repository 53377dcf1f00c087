// SPDX-License-Identifier: Apache-2.0
// The block algorithms of the CUDA retrieval, run on the host: selection and merge against the CPU
// kernel, with the work of every phase done in several orders.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "inputs.h"
#include "key_terms.h"
#include "merge_block.h"
#include "retrieval.h"

namespace perennial::kernels {
namespace {

using cuda::HostBlock;

constexpr HostBlock::Order kOrders[] = {HostBlock::Order::ascending, HostBlock::Order::descending,
                                        HostBlock::Order::interleaved};

// Scratch with a value in every byte that no algorithm may count on.
struct Scratch {
  explicit Scratch(std::int64_t k) {
    cuda::MergeScratch::at(nullptr, k, &bytes);
    memory.assign(bytes / sizeof(std::uint64_t) + 1, 0xA5A5A5A5A5A5A5A5u);
    at = cuda::MergeScratch::at(reinterpret_cast<unsigned char*>(memory.data()), k, nullptr);
  }
  std::size_t bytes = 0;
  std::vector<std::uint64_t> memory;
  cuda::MergeScratch at;
};

float score(const float* query, const float* key, std::int64_t dim) {
  float sum = 0;
  for (std::int64_t i = 0; i < dim; ++i) sum = std::fma(query[i], key[i], sum);
  return sum;
}

void expect_equal(float actual, float expected) {
  if (std::isnan(expected)) {
    ASSERT_TRUE(std::isnan(actual));
  } else {
    ASSERT_EQ(actual, expected);
  }
}

// `problem` has been run by the CPU kernel.
void expect_block_agrees(Retrieval& problem) {
  const RetrievalCase& shape = problem.shape;
  SCOPED_TRACE(shape.name);
  problem.run();
  Scratch scratch(shape.k);
  const auto k = static_cast<std::size_t>(shape.k);
  for (std::int64_t th = 0; th < shape.tokens * shape.heads; ++th) {
    const std::int64_t head = th % shape.heads;
    const float* query = problem.query.data() + th * 2 * shape.dim;
    std::vector<float> rows, cols;
    for (std::int64_t r = 0; r < shape.n_row; ++r) {
      rows.push_back(score(
          query, problem.row_keys.data() + head * problem.row_stride() + r * shape.dim, shape.dim));
    }
    for (std::int64_t c = 0; c < shape.n_col; ++c) {
      cols.push_back(score(query + shape.dim,
                           problem.col_keys.data() + head * problem.col_stride() + c * shape.dim,
                           shape.dim));
    }
    for (const HostBlock::Order order : kOrders) {
      std::vector<std::int64_t> ids(k, -1);
      std::vector<float> scores(k, -1);
      std::vector<std::int32_t> row_index(k, -1);
      cuda::retrieve_token(HostBlock(order),
                           {rows.data(), cols.data(), ids.data(), scores.data(), row_index.data()},
                           shape.segments.data(), std::ssize(shape.segments), shape.k, scratch.at);
      for (std::size_t i = 0; i < k; ++i) {
        const std::size_t at = static_cast<std::size_t>(th) * k + i;
        ASSERT_EQ(ids[i], problem.ids[at]) << "token and head " << th << " rank " << i;
        ASSERT_EQ(row_index[i], problem.row_index[at]);
        expect_equal(scores[i], problem.scores[at]);
      }
    }
  }
}

// Beyond the common table: sides that need the bound, fill the buffer, or take many segments.
std::vector<RetrievalCase> block_cases() {
  std::vector<RetrievalCase> cases = retrieval_cases();
  cases.push_back({"bound", 2, 2, 16, 8, 700, 900, true, {{0, 700, 900, 0}}});
  cases.push_back({"full_buffer", 1, 1, 128, 3, 5000, 3000, true, {{0, 5000, 3000, 0}}});
  RetrievalCase many{"many_segments", 2, 1, 128, 4, 1200, 400, true, {}};
  for (std::int64_t s = 0; s < 12; ++s) {
    many.segments.push_back(
        {s * 100, 100, s % 3 == 0 ? 400 : 37, static_cast<std::uint32_t>(s * 150)});
  }
  cases.push_back(many);
  return cases;
}

TEST(DeviceRetrieve, AgreesWithTheCpuWithTies) {
  for (const RetrievalCase& shape : block_cases()) {
    Retrieval problem(shape, dyadic);
    expect_block_agrees(problem);
  }
}

TEST(DeviceRetrieve, AgreesWithTheCpuOnRandomScores) {
  for (const RetrievalCase& shape : block_cases()) {
    Retrieval problem(shape, uniform);
    expect_block_agrees(problem);
  }
}

// Every score better than all before it: the bound of the groups is all that can help, and the
// buffer is cut back again and again.
TEST(DeviceRetrieve, AgreesOnAscendingAndEqualScores) {
  for (const int order : {-1, 0, 1}) {
    for (const std::int64_t k : {1, 16, 128}) {
      RetrievalCase shape{"ordered", 1, 1, k, 1, 6000, 2500, true, {{0, 6000, 2500, 9}}};
      Retrieval problem(shape, uniform);
      problem.query = {1, 1};
      const auto fill = [order](std::vector<float>& keys) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
          keys[i] = static_cast<float>(order) * static_cast<float>(i);
        }
      };
      fill(problem.row_keys);
      fill(problem.col_keys);
      expect_block_agrees(problem);
    }
  }
}

TEST(DeviceRetrieve, AgreesOnNonFiniteScores) {
  constexpr float kHuge = std::numeric_limits<float>::infinity();
  const float specials[] = {std::nanf(""), -kHuge, kHuge, std::numeric_limits<float>::max(), -0.0f};
  for (RetrievalCase shape : block_cases()) {
    for (const std::uint32_t density : {1u, 2u, 20u}) {
      shape.dim = 1;
      Retrieval problem(shape, dyadic);
      std::fill(problem.query.begin(), problem.query.end(), 1.0f);
      std::mt19937 engine(density);
      for (auto* keys : {&problem.row_keys, &problem.col_keys}) {
        for (float& key : *keys) {
          if (engine() % density == 0) key = specials[engine() % std::size(specials)];
        }
      }
      expect_block_agrees(problem);
    }
  }
}

// Slots sorted by key, and every column of a key's gradient by a thread of its own.
TEST(DeviceRetrieve, KeyGradientsHaveTheBitsOfTheCpu) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, uniform);
    problem.run();
    const auto dscores = uniform(std::ssize(problem.scores), 21);
    std::vector<float> expected[2], found[2];
    for (auto* side : {expected, found}) {
      side[0].assign(problem.row_keys.size(), 0.5f);
      side[1].assign(problem.col_keys.size(), 0.5f);
    }
    retrieve_backward_keys(problem.args(), dscores.data(), shape.tokens, 0, shape.heads,
                           expected[0].data(), expected[1].data());
    for (int side = 0; side < 2; ++side) {
      const cuda::KeySlots slots{shape.heads,
                                 shape.k,
                                 shape.dim,
                                 side == 0,
                                 !shape.common_keys,
                                 problem.ids.data(),
                                 problem.row_index.data(),
                                 problem.query.data(),
                                 dscores.data()};
      std::vector<Use> uses;
      for (std::uint32_t i = 0; i < problem.ids.size(); ++i) uses.push_back({0, i});
      const auto id = [&](const Use& use) { return slots.id(use.position); };
      std::stable_sort(uses.begin(), uses.end(),
                       [&](const Use& a, const Use& b) { return id(a) < id(b); });
      for (std::size_t first = 0; first < uses.size();) {
        std::size_t end = first;
        while (end < uses.size() && id(uses[end]) == id(uses[first])) ++end;
        const std::int64_t count = side == 0 ? shape.n_row : shape.n_col;
        const std::int64_t key = row_of(id(uses[first])) * count + col_of(id(uses[first]));
        for (std::int64_t i = 0; i < shape.dim; ++i) {
          float& sum = found[side][static_cast<std::size_t>(key * shape.dim + i)];
          sum = slots.add(sum, i, &uses[first], static_cast<std::uint32_t>(end - first));
        }
        first = end;
      }
      expect_same_bits(found[side], expected[side]);
    }
  }
}

TEST(DeviceRetrieve, SharedMemoryFitsABlock) {
  for (std::int64_t k = 1; k <= 128; ++k) {
    std::size_t bytes = 0;
    cuda::MergeScratch::at(nullptr, k, &bytes);
    EXPECT_LE(bytes, 48u * 1024) << "k " << k;
    EXPECT_LE(k + cuda::pruned_pairs(k), 1024);
  }
  EXPECT_EQ(cuda::pruned_pairs(1), 1);
  EXPECT_EQ(cuda::pruned_pairs(16), 50);
}

}  // namespace
}  // namespace perennial::kernels
