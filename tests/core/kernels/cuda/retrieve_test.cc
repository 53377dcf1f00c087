// SPDX-License-Identifier: Apache-2.0
// Retrieval on the device against the CPU kernel: ids and row indices exactly, scores by their
// bits, for the common table and for sizes that need every path.
#include "perennial/kernels/cuda/retrieve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../inputs.h"
#include "../retrieval.h"
#include "device_testing.h"

namespace perennial::kernels::cuda {
namespace {

// A problem's arrays on the device.
struct DeviceRetrieval {
  explicit DeviceRetrieval(const Retrieval& problem)
      : shape(problem.shape),
        query(problem.query),
        row_keys(problem.row_keys),
        col_keys(problem.col_keys),
        segments(problem.shape.segments),
        ids(problem.ids.size()),
        scores(problem.ids.size()),
        row_index(problem.ids.size()) {
    args.heads = shape.heads;
    args.k = shape.k;
    args.sub_dim = shape.dim;
    args.query = query.data();
    args.rows = {shape.n_row, !shape.common_keys, row_keys.data()};
    args.cols = {shape.n_col, !shape.common_keys, col_keys.data()};
    args.segments = shape.segments.data();
    args.device_segments = segments.data();
    args.segment_count = std::ssize(shape.segments);
    args.ids = ids.data();
    args.scores = scores.data();
    args.row_index = row_index.data();
  }
  // With a workspace for `at_once` tokens.
  Error run(std::int64_t at_once) {
    const std::size_t bytes = retrieve_workspace(args, at_once);
    OnDevice<float> workspace(bytes / sizeof(float));
    const Error error = retrieve(args, shape.tokens, workspace.data(), bytes, nullptr);
    return error != 0 ? error : static_cast<Error>(cudaDeviceSynchronize());
  }

  RetrievalCase shape;
  OnDevice<float> query, row_keys, col_keys;
  OnDevice<KeySegment> segments;
  OnDevice<std::int64_t> ids;
  OnDevice<float> scores;
  OnDevice<std::int32_t> row_index;
  RetrieveArgs args;
};

// Runs `problem` on both, the device in chunks of `chunk` tokens (0: all at once).
void expect_device_agrees(Retrieval& problem, std::int64_t chunk = 0) {
  const RetrievalCase& shape = problem.shape;
  SCOPED_TRACE(shape.name + " in chunks of " + std::to_string(chunk));
  problem.run();
  DeviceRetrieval device(problem);
  ASSERT_CUDA(device.run(chunk > 0 ? std::min(chunk, shape.tokens) : shape.tokens));
  EXPECT_EQ(device.ids.read(), problem.ids);
  EXPECT_EQ(device.row_index.read(), problem.row_index);
  const std::vector<float> found = device.scores.read();
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(problem.scores[i])) {
      ASSERT_TRUE(std::isnan(found[i])) << "at " << i;
    } else {
      ASSERT_EQ(found[i], problem.scores[i]) << "at " << i;
    }
  }
}

class CudaRetrieve : public CudaTest {};

TEST_F(CudaRetrieve, AgreesWithTheCpuWithTies) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    Retrieval problem(shape, dyadic);
    expect_device_agrees(problem);
  }
}

TEST_F(CudaRetrieve, AgreesWithTheCpuOnRandomScores) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    Retrieval problem(shape, uniform);
    expect_device_agrees(problem);
  }
}

TEST_F(CudaRetrieve, ChunksChangeNothing) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    for (const std::int64_t chunk : {1, 3, 64}) {
      Retrieval problem(shape, uniform);
      expect_device_agrees(problem, chunk);
    }
  }
}

// Every score better than all before it: the bound of the groups is all that can help, and the
// buffer is cut back again and again.
TEST_F(CudaRetrieve, AgreesOnAscendingAndEqualScores) {
  for (const int order : {-1, 0, 1}) {
    for (const std::int64_t k : {1, 16, 128}) {
      Retrieval problem({"ordered", 1, 1, k, 1, 6000, 2500, true, {{0, 6000, 2500, 9}}}, uniform);
      problem.query = {1, 1};
      for (auto* keys : {&problem.row_keys, &problem.col_keys}) {
        for (std::size_t i = 0; i < keys->size(); ++i) {
          (*keys)[i] = static_cast<float>(order) * static_cast<float>(i);
        }
      }
      expect_device_agrees(problem);
    }
  }
}

TEST_F(CudaRetrieve, AgreesOnNonFiniteScores) {
  constexpr float kHuge = std::numeric_limits<float>::infinity();
  const float specials[] = {std::nanf(""), -kHuge, kHuge, std::numeric_limits<float>::max(), -0.0f};
  for (RetrievalCase shape : retrieval_cases()) {
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
      SCOPED_TRACE(density);
      expect_device_agrees(problem);
    }
  }
}

TEST_F(CudaRetrieve, QueryGradientHasTheBitsOfTheCpu) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    if (shape.tokens == 0) continue;
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, uniform);
    problem.run();
    const auto dscores = uniform(std::ssize(problem.scores), 21);
    std::vector<float> expected(problem.query.size());
    retrieve_backward_query(problem.args(), dscores.data(), 0, shape.tokens, expected.data());
    DeviceRetrieval device(problem);
    ASSERT_CUDA(device.run(shape.tokens));
    OnDevice<float> device_dscores(dscores), dquery(expected.size());
    ASSERT_CUDA(retrieve_backward_query(device.args, device_dscores.data(), shape.tokens,
                                        dquery.data(), nullptr));
    expect_same_bits(dquery.read(), expected);
  }
}

TEST_F(CudaRetrieve, KeyGradientsHaveTheBitsOfTheCpu) {
  for (const RetrievalCase& shape : retrieval_cases()) {
    SCOPED_TRACE(shape.name);
    Retrieval problem(shape, uniform);
    problem.run();
    const auto dscores = uniform(std::ssize(problem.scores), 21);
    std::vector<float> drow(problem.row_keys.size(), 0.5f), dcol(problem.col_keys.size(), 0.5f);
    OnDevice<float> device_dscores(dscores), device_drow(drow), device_dcol(dcol);
    retrieve_backward_keys(problem.args(), dscores.data(), shape.tokens, 0, shape.heads,
                           drow.data(), dcol.data());
    DeviceRetrieval device(problem);
    ASSERT_CUDA(device.run(shape.tokens));
    const std::size_t bytes = retrieve_backward_keys_workspace(device.args, shape.tokens);
    ASSERT_GT(bytes, 0u);
    OnDevice<std::uint64_t> workspace(bytes / sizeof(std::uint64_t));
    ASSERT_CUDA(retrieve_backward_keys(device.args, device_dscores.data(), shape.tokens,
                                       workspace.data(), bytes, device_drow.data(),
                                       device_dcol.data(), nullptr));
    expect_same_bits(device_drow.read(), drow);
    expect_same_bits(device_dcol.read(), dcol);
    if (shape.tokens > 0) {
      EXPECT_EQ(
          retrieve_backward_keys(device.args, device_dscores.data(), shape.tokens, workspace.data(),
                                 bytes - 256, device_drow.data(), device_dcol.data(), nullptr),
          kInvalidValue)
          << "workspace too small";
    }
  }
}

TEST_F(CudaRetrieve, RefusesWhatItCannotServe) {
  RetrieveArgs args;
  const KeySegment segment{0, 1000, 1000, 0};
  args.segments = &segment;
  args.segment_count = 1;
  args.k = kMaxTopK + 1;
  EXPECT_EQ(retrieve(args, 1, nullptr, std::size_t{1} << 30, nullptr), kInvalidValue);
  args.k = 1;
  EXPECT_EQ(retrieve(args, 1, nullptr, 16, nullptr), kInvalidValue) << "workspace too small";
}

}  // namespace
}  // namespace perennial::kernels::cuda
