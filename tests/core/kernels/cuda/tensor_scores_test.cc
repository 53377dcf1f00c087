// SPDX-License-Identifier: Apache-2.0
// Retrieval with scores of bf16 inputs: exactly the CPU's of the same rounded inputs where every
// order of summation gives the same bits; elsewhere right by the kernel's own scores, which are
// near.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "../inputs.h"
#include "../retrieval.h"
#include "device_testing.h"
#include "perennial/kernels/cuda/retrieve.h"

namespace perennial::kernels::cuda {
namespace {

std::vector<BFloat16> rounded(const std::vector<float>& values) {
  std::vector<BFloat16> out;
  for (const float value : values) out.push_back(to_bfloat16(value));
  return out;
}
std::vector<float> promoted(const std::vector<BFloat16>& values) {
  std::vector<float> out;
  for (const BFloat16 value : values) out.push_back(to_float(value));
  return out;
}

struct Found {
  std::vector<std::int64_t> ids;
  std::vector<float> scores;
  std::vector<std::int32_t> row_index;
};

// offset: elements by which the arrays start off the alignment of wide loads.
Found retrieve_rounded(const Retrieval& problem, std::size_t offset) {
  const auto shifted = [offset](const std::vector<float>& values) {
    std::vector<BFloat16> out(offset);
    const std::vector<BFloat16> all = rounded(values);
    out.insert(out.end(), all.begin(), all.end());
    return out;
  };
  const RetrievalCase& shape = problem.shape;
  OnDevice<BFloat16> query(shifted(problem.query)), rows(shifted(problem.row_keys)),
      cols(shifted(problem.col_keys));
  OnDevice<KeySegment> segments(shape.segments);
  OnDevice<std::int64_t> ids(problem.ids.size());
  OnDevice<float> scores(problem.ids.size());
  OnDevice<std::int32_t> row_index(problem.ids.size());
  RetrieveArgs args;
  args.heads = shape.heads;
  args.k = shape.k;
  args.sub_dim = shape.dim;
  args.rounded_query = query.data() + offset;
  args.rows = {shape.n_row, !shape.common_keys, nullptr, rows.data() + offset};
  args.cols = {shape.n_col, !shape.common_keys, nullptr, cols.data() + offset};
  args.segments = shape.segments.data();
  args.device_segments = segments.data();
  args.segment_count = std::ssize(shape.segments);
  args.ids = ids.data();
  args.scores = scores.data();
  args.row_index = row_index.data();
  const std::size_t bytes = retrieve_workspace(args, shape.tokens);
  OnDevice<float> workspace(bytes / sizeof(float));
  const Error error = retrieve(args, shape.tokens, workspace.data(), bytes, nullptr);
  EXPECT_EQ(error, 0) << error_text(error);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {ids.read(), scores.read(), row_index.read()};
}

class CudaTensorScores : public CudaTest {};

TEST_F(CudaTensorScores, AgreeExactlyWhereSumsAreExact) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, dyadic);  // bf16 has them all
    problem.run();
    for (const std::size_t offset : {0u, 1u}) {
      const Found found = retrieve_rounded(problem, offset);
      EXPECT_EQ(found.ids, problem.ids);
      EXPECT_EQ(found.scores, problem.scores);
      EXPECT_EQ(found.row_index, problem.row_index);
    }
  }
}

TEST_F(CudaTensorScores, AreNearOnRandomInputs) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, uniform);
    problem.query = promoted(rounded(problem.query));
    problem.row_keys = promoted(rounded(problem.row_keys));
    problem.col_keys = promoted(rounded(problem.col_keys));
    problem.run();
    const Found found = retrieve_rounded(problem, 0);
    const double eps = 1e-5 * static_cast<double>(shape.dim);
    // The score of a slot's expert, from its keys.
    const auto score_of = [&](std::size_t slot) {
      const auto set = shape.common_keys ? std::size_t{0}
                                         : slot / static_cast<std::size_t>(shape.k) %
                                               static_cast<std::size_t>(shape.heads);
      const auto dim = static_cast<std::size_t>(shape.dim);
      const float* query =
          problem.query.data() + slot / static_cast<std::size_t>(shape.k) * 2 * dim;
      const float* row =
          problem.row_keys.data() + (set * static_cast<std::size_t>(shape.n_row) +
                                     static_cast<std::size_t>(found.row_index[slot])) *
                                        dim;
      const float* col =
          problem.col_keys.data() +
          (set * static_cast<std::size_t>(shape.n_col) + col_of(found.ids[slot])) * dim;
      double sum = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        sum += double{query[i]} * row[i] + double{query[dim + i]} * col[i];
      }
      return sum;
    };
    for (std::size_t i = 0; i < found.ids.size(); ++i) {
      // The i-th of the reference is as large, the expert has this score, and the order is right.
      ASSERT_NEAR(found.scores[i], problem.scores[i], eps) << "at " << i;
      ASSERT_NEAR(found.scores[i], score_of(i), eps) << "at " << i;
      if (i % static_cast<std::size_t>(shape.k) == 0) continue;
      ASSERT_GE(found.scores[i - 1], found.scores[i]) << "at " << i;
      if (found.scores[i - 1] == found.scores[i]) {
        ASSERT_LT(static_cast<std::uint64_t>(found.ids[i - 1]),
                  static_cast<std::uint64_t>(found.ids[i]));
      }
    }
  }
}

TEST_F(CudaTensorScores, AllInputsAreRoundedOrNone) {
  RetrieveArgs args;
  const KeySegment segment{0, 10, 10, 0};
  const BFloat16 value{};
  args.segments = &segment;
  args.segment_count = 1;
  args.rounded_query = &value;
  EXPECT_EQ(retrieve(args, 1, nullptr, std::size_t{1} << 20, nullptr), kInvalidValue);
}

}  // namespace
}  // namespace perennial::kernels::cuda
