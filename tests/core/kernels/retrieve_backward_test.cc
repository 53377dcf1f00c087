// SPDX-License-Identifier: Apache-2.0
// Gradients of queries and sub-keys against plain double sums.
#include <gtest/gtest.h>

#include <vector>

#include "inputs.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/kernels/retrieve.h"
#include "retrieval.h"

namespace perennial::kernels {
namespace {

// Sums of at most a few thousand terms of size up to 1, in fp32.
constexpr double kTolerance = 1e-3;

struct Gradients {
  std::vector<double> query, row_keys, col_keys;
};

Gradients plain(Retrieval& problem, const std::vector<float>& dscores) {
  const RetrievalCase& shape = problem.shape;
  const auto dim = static_cast<std::size_t>(shape.dim);
  Gradients out{std::vector<double>(problem.query.size()),
                std::vector<double>(problem.row_keys.size()),
                std::vector<double>(problem.col_keys.size())};
  for (std::size_t slot = 0; slot < dscores.size(); ++slot) {
    const std::size_t token_head = slot / static_cast<std::size_t>(shape.k);
    const std::size_t head = token_head % static_cast<std::size_t>(shape.heads);
    const std::size_t row = head * static_cast<std::size_t>(problem.row_stride()) +
                            static_cast<std::size_t>(problem.row_index[slot]) * dim;
    const std::size_t col =
        head * static_cast<std::size_t>(problem.col_stride()) + col_of(problem.ids[slot]) * dim;
    for (std::size_t i = 0; i < dim; ++i) {
      const std::size_t q = token_head * 2 * dim + i;
      const double d = dscores[slot];
      out.query[q] += d * problem.row_keys[row + i];
      out.query[q + dim] += d * problem.col_keys[col + i];
      out.row_keys[row + i] += d * problem.query[q];
      out.col_keys[col + i] += d * problem.query[q + dim];
    }
  }
  return out;
}

void expect_close(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], kTolerance);
}

TEST(RetrieveBackward, MatchesPlainSums) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, uniform);
    const RetrieveArgs args = problem.args();
    retrieve(args, 0, shape.tokens, 0, shape.heads);
    const auto dscores = uniform(std::ssize(problem.scores), 21);
    const Gradients expected = plain(problem, dscores);

    std::vector<float> dquery(problem.query.size(), 9.0f);  // overwritten
    const std::int64_t middle = shape.tokens / 2;
    retrieve_backward_query(args, dscores.data(), 0, middle, dquery.data());
    retrieve_backward_query(args, dscores.data(), middle, shape.tokens, dquery.data());
    expect_close(dquery, expected.query);

    std::vector<float> drow(problem.row_keys.size()), dcol(problem.col_keys.size());
    retrieve_backward_keys(args, dscores.data(), shape.tokens, 0, shape.heads, drow.data(),
                           dcol.data());
    expect_close(drow, expected.row_keys);
    expect_close(dcol, expected.col_keys);

    if (!shape.common_keys) {  // heads split between threads give the same bits
      std::vector<float> drow2(drow.size()), dcol2(dcol.size());
      for (std::int64_t h = shape.heads; h > 0; --h) {
        retrieve_backward_keys(args, dscores.data(), shape.tokens, h - 1, h, drow2.data(),
                               dcol2.data());
      }
      expect_same_bits(drow2, drow);
      expect_same_bits(dcol2, dcol);
    }
  }
}

TEST(RetrieveBackward, KeysAccumulateIntoWhatIsThere) {
  RetrievalCase shape{"one", 1, 1, 1, 2, 1, 1, true, {{0, 1, 1, 0}}};
  Retrieval problem(shape, uniform);
  problem.query = {1, 2, 3, 4};
  problem.run();
  std::vector<float> drow{10, 20}, dcol{30, 40};
  const float dscore = 0.5f;
  retrieve_backward_keys(problem.args(), &dscore, 1, 0, 1, drow.data(), dcol.data());
  EXPECT_EQ(drow, (std::vector<float>{10.5f, 21}));
  EXPECT_EQ(dcol, (std::vector<float>{31.5f, 42}));
}

}  // namespace
}  // namespace perennial::kernels
