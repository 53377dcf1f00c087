// SPDX-License-Identifier: Apache-2.0
// Helpers of the core tests: small layers, reproducible inputs, a training step, commits.
// Symbols: B tokens, H heads, K top-k.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/core/error.h"
#include "perennial/core/peer.h"
#include "perennial/core/pool.h"
#include "perennial/core/sparse_optimizer.h"
#include "perennial/kernels/philox.h"
#include "perennial/storage/memory_store.h"

namespace perennial::testing {

// N(0, scale^2), the same bits everywhere.
inline at::Tensor normal_tensor(at::IntArrayRef sizes, std::uint64_t seed, float scale = 1) {
  at::Tensor tensor = at::empty(sizes);
  kernels::fill_normal(
      seed, 0, 0, 0, scale,
      {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
  return tensor;
}

// Equal shape, type and bytes: -0 differs from 0, and a NaN equals itself.
inline ::testing::AssertionResult same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) {
    return ::testing::AssertionFailure() << a.sizes() << " against " << b.sizes();
  }
  const at::Tensor left = a.detach().contiguous(), right = b.detach().contiguous();
  if (left.numel() > 0 &&
      std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) != 0) {
    return ::testing::AssertionFailure()
           << "bits differ; largest difference " << (left - right).abs().max().item<double>();
  }
  return ::testing::AssertionSuccess();
}

// The bytes of a request's dense entries.
inline std::map<std::string, storage::Bytes> dense_bytes(const storage::CommitRequest& request) {
  std::map<std::string, storage::Bytes> entries;
  for (const auto& [name, payload] : request.dense) {
    entries[name] = value_or_throw(payload.bytes());
  }
  return entries;
}

// The message of the E that `work` throws; fails the test when it throws none.
template <class E>
std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
    return "";
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// 32 pages of 2 experts: an expert's record is 32 floats.
inline PeerOptions small_options() {
  PeerOptions options;
  options.d_in = 12;
  options.d_out = 6;
  options.heads = 2;
  options.top_k = 3;
  options.d_key = 8;
  options.rows = 8;
  options.cols = 8;
  options.page_bytes = 256;
  options.v_scale = 0.5;
  options.seed = 3;
  return options;
}

inline at::Tensor inputs(std::uint64_t seed, std::int64_t tokens = 8, std::int64_t d_in = 12) {
  return normal_tensor({tokens, d_in}, seed);
}

inline at::Tensor evaluate(PeerImpl& peer, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const bool training = peer.is_training();
  peer.eval();
  const at::Tensor y = peer.forward(x);
  peer.train(training);
  return y;
}
inline at::Tensor evaluate(PeerImpl& peer, const at::Tensor& x, std::uint32_t generation) {
  const at::NoGradGuard no_grad;
  const bool training = peer.is_training();
  peer.eval();
  const at::Tensor y = peer.forward(x, generation);
  peer.train(training);
  return y;
}

// Gradients of (y - 1)^2 / 2 with respect to everything; nothing is updated.
inline void backward(PeerImpl& peer, const at::Tensor& x) {
  const at::Tensor y = peer.forward(x);
  y.backward(y.detach() - 1);
}

// One step of plain descent on the router and of `experts` on the experts.
inline void train_step(PeerImpl& peer, SparseOptimizer& experts, const at::Tensor& x) {
  peer.train();
  peer.zero_grad();
  backward(peer, x);
  {
    const at::NoGradGuard no_grad;
    for (auto& [name, parameter] : peer.trainable()) {
      if (parameter.grad().defined()) parameter.sub_(parameter.grad() * 0.05);
    }
  }
  experts.step();
}

inline void train(PeerImpl& peer, SparseOptimizer& experts, int steps, std::uint64_t seed,
                  std::int64_t tokens = 8) {
  for (int i = 0; i < steps; ++i) {
    train_step(peer, experts,
               inputs(seed * 1000 + static_cast<std::uint64_t>(i), tokens, peer.options().d_in));
  }
}

// Commits a layer, or a pool, and says so to it.
template <class Part>
storage::CommitInfo commit(storage::PageStore& store, Part& part) {
  storage::CommitRequest request;
  part.add_to_commit(request);
  storage::CommitInfo info = value_or_throw(store.commit(request));
  part.committed();
  return info;
}

// Ids of rows [first, first + rows) x cols, row by row.
inline std::vector<std::int64_t> ids_of(std::uint32_t first, std::uint32_t rows,
                                        std::uint32_t cols) {
  std::vector<std::int64_t> ids;
  for (std::uint32_t row = first; row < first + rows; ++row) {
    for (std::uint32_t col = 0; col < cols; ++col) ids.push_back(kernels::expert_id(row, col));
  }
  return ids;
}

inline std::vector<std::int64_t> ids_of(const Generation& g) {
  return ids_of(g.first_row, g.rows, g.cols);
}

inline ::testing::AssertionResult same_values(const ExpertValues& a, const ExpertValues& b) {
  if (auto result = same_bits(a.u, b.u); !result) return result << " (u)";
  if (auto result = same_bits(a.v, b.v); !result) return result << " (v)";
  return a.w.defined() ? same_bits(a.w, b.w) << " (w)" : ::testing::AssertionSuccess();
}

}  // namespace perennial::testing
