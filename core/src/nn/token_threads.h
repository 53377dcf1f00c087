// SPDX-License-Identifier: Apache-2.0
// How the layer's work is shared out between threads, and its tensors handed to the kernels.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace perennial {

// Tokens a thread takes at once: enough to amortise a kernel call, few enough to balance.
inline constexpr std::int64_t kTokenGrain = 16;

// Too few tokens to keep every thread busy: heads or channels are shared out instead.
inline bool few_tokens(std::int64_t tokens) { return tokens < kTokenGrain * at::get_num_threads(); }

template <class Work>
void over_tokens(std::int64_t begin, std::int64_t end, const Work& work) {
  at::parallel_for(begin, end, kTokenGrain, work);
}

// The work on a token's experts is large: few tokens are shared out, too.
template <class Work>
void over_experts_tokens(std::int64_t begin, std::int64_t end, const Work& work) {
  const std::int64_t share = (end - begin) / at::get_num_threads();
  at::parallel_for(begin, end, std::clamp<std::int64_t>(share, 1, kTokenGrain), work);
}

inline const float* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}
inline float* out(at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr;
}

}  // namespace perennial
