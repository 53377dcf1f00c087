// SPDX-License-Identifier: Apache-2.0
// Retrieval against the exhaustive reference: ids exactly, for every case of the table.
#include "perennial/kernels/retrieve.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/kernels/reference.h"
#include "retrieval.h"

namespace perennial::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void expect_matches_reference(Retrieval& problem) {
  const RetrievalCase& shape = problem.shape;
  SCOPED_TRACE(shape.name);
  problem.run();
  for (std::int64_t t = 0; t < shape.tokens; ++t) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const std::int64_t first = t * shape.heads + h;
      const auto expected = reference::retrieve<float>(
          std::span(problem.query)
              .subspan(static_cast<std::size_t>(first * 2 * shape.dim),
                       static_cast<std::size_t>(2 * shape.dim)),
          std::span(problem.row_keys).subspan(static_cast<std::size_t>(h * problem.row_stride())),
          std::span(problem.col_keys).subspan(static_cast<std::size_t>(h * problem.col_stride())),
          shape.dim, shape.segments, shape.k);
      ASSERT_EQ(std::ssize(expected), shape.k);
      for (std::int64_t i = 0; i < shape.k; ++i) {
        const auto at = static_cast<std::size_t>(first * shape.k + i);
        const auto& want = expected[static_cast<std::size_t>(i)];
        ASSERT_EQ(problem.ids[at], want.id) << "token " << t << " head " << h << " rank " << i;
        ASSERT_EQ(problem.row_index[at], want.row_index);
        const auto score = static_cast<float>(want.score);
        if (std::isnan(score)) {
          ASSERT_TRUE(std::isnan(problem.scores[at]));
        } else {
          ASSERT_EQ(problem.scores[at], score);
        }
      }
    }
  }
}

// Exactly representable scores: the reference's double sums and the kernel's lanes agree bit for
// bit, and most of the scores tie.
TEST(Retrieve, MatchesTheReferenceWithTies) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    Retrieval problem(shape, dyadic);
    expect_matches_reference(problem);
  }
}

// One dimension and a query of ones: a score is its key, so arbitrary floats compare exactly.
TEST(Retrieve, MatchesTheReferenceOnArbitraryScores) {
  for (RetrievalCase shape : retrieval_cases()) {
    shape.dim = 1;
    Retrieval problem(shape, uniform);
    std::fill(problem.query.begin(), problem.query.end(), 1.0f);
    expect_matches_reference(problem);
  }
}

TEST(Retrieve, EqualScoresGiveTheSmallestIds) {
  RetrievalCase shape{"equal", 2, 1, 20, 4, 50, 30, true, {{0, 50, 30, 7}}};
  Retrieval problem(shape, [](std::int64_t n, std::uint32_t) {
    return std::vector<float>(static_cast<std::size_t>(n), 0.5f);
  });
  expect_matches_reference(problem);
  for (std::uint32_t i = 0; i < 20; ++i) EXPECT_EQ(problem.ids[i], expert_id(7, i));
}

TEST(Retrieve, MinusZeroTiesWithZero) {
  RetrievalCase shape{"zeros", 1, 1, 4, 1, 4, 1, true, {{0, 4, 1, 0}}};
  Retrieval problem(shape, uniform);
  problem.query = {1, 1};
  problem.row_keys = {0.0f, -0.0f, 0.0f, -0.0f};
  problem.col_keys = {0.0f};
  problem.run();
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_EQ(problem.ids[i], expert_id(i, 0));
}

// The sums 1e20 + tiny are equal as doubles, but not exactly.
TEST(Retrieve, ComparesExactSums) {
  RetrievalCase shape{"exact", 1, 1, 1, 1, 2, 3, true, {{0, 2, 3, 0}}};
  Retrieval problem(shape, uniform);
  problem.query = {1, 1};
  problem.row_keys = {1e20f, 1e20f};
  problem.col_keys = {1e-20f, 2e-20f, -1e-20f};
  problem.run();
  EXPECT_EQ(problem.ids[0], expert_id(0, 1));
  for (const std::int64_t k : {2, 3, 4, 6}) {
    shape.k = k;
    Retrieval more(shape, uniform);
    more.query = problem.query;
    more.row_keys = problem.row_keys;
    more.col_keys = problem.col_keys;
    expect_matches_reference(more);
  }
}

TEST(Retrieve, NanQueryGivesTheSmallestIds) {
  for (const int nan_half : {0, 1, 2}) {  // row half, column half, both
    for (const RetrievalCase& shape : retrieval_cases()) {
      SCOPED_TRACE(shape.name);
      Retrieval problem(shape, uniform);
      for (std::size_t i = 0; i < problem.query.size(); ++i) {
        const bool row_half = static_cast<std::int64_t>(i) / shape.dim % 2 == 0;
        if (nan_half == 2 || row_half == (nan_half == 0)) problem.query[i] = kNan;
      }
      problem.run();
      std::vector<std::int64_t> smallest;
      for (const KeySegment& segment : shape.segments) {
        for (std::uint32_t r = 0; r < segment.rows; ++r) {
          for (std::uint32_t c = 0; c < segment.cols; ++c) {
            smallest.push_back(expert_id(segment.first_row + r, c));
          }
        }
      }
      for (std::size_t i = 0; i < problem.ids.size(); ++i) {
        ASSERT_EQ(problem.ids[i], smallest[i % static_cast<std::size_t>(shape.k)]);
        ASSERT_TRUE(std::isnan(problem.scores[i]));
      }
    }
  }
}

// NaN and infinities scattered over the keys, against the exhaustive order.
TEST(Retrieve, NonFiniteScoresKeepTheDocumentedOrder) {
  const float specials[] = {kNan,
                            -kInfinity,
                            kInfinity,
                            std::numeric_limits<float>::lowest(),
                            std::numeric_limits<float>::max(),
                            0.0f,
                            -0.0f};
  for (RetrievalCase shape : retrieval_cases()) {
    for (std::uint32_t density : {2u, 5u, 20u}) {
      shape.dim = 1;
      Retrieval problem(shape, dyadic);
      std::fill(problem.query.begin(), problem.query.end(), 1.0f);
      std::mt19937 engine(density);
      for (auto* keys : {&problem.row_keys, &problem.col_keys}) {
        for (float& key : *keys) {
          if (engine() % density == 0) key = specials[engine() % std::size(specials)];
        }
      }
      expect_matches_reference(problem);
    }
  }
}

TEST(Retrieve, TokensDoNotDependOnTheBatch) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval whole(shape, uniform), split(shape, uniform), alone(shape, uniform);
    whole.run();
    const std::int64_t third = shape.tokens / 3, heads = shape.heads;
    retrieve(split.args(), 0, third, 0, heads);
    retrieve(split.args(), third, shape.tokens, heads / 2, heads);
    retrieve(split.args(), third, shape.tokens, 0, heads / 2);
    for (std::int64_t t = shape.tokens; t > 0; --t) retrieve(alone.args(), t - 1, t, 0, heads);
    EXPECT_EQ(split.ids, whole.ids);
    EXPECT_EQ(alone.ids, whole.ids);
    expect_same_bits(split.scores, whole.scores);
    expect_same_bits(alone.scores, whole.scores);
    EXPECT_EQ(alone.row_index, whole.row_index);
  }
}

// Rows that join behind a segment of their own change nothing while they are in no segment.
TEST(Retrieve, MaskedRowsChangeNothing) {
  RetrievalCase before{"before", 5, 2, 8, 9, 20, 15, true, {{0, 20, 15, 0}}};
  RetrievalCase after = before;
  after.n_row = 50;
  after.n_col = 40;
  Retrieval small(before, uniform), grown(after, uniform);
  std::copy(small.row_keys.begin(), small.row_keys.end(), grown.row_keys.begin());
  std::copy(small.col_keys.begin(), small.col_keys.end(), grown.col_keys.begin());
  small.run();
  grown.run();
  EXPECT_EQ(grown.ids, small.ids);
  expect_same_bits(grown.scores, small.scores);
}

}  // namespace
}  // namespace perennial::kernels
