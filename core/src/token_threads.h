// SPDX-License-Identifier: Apache-2.0
// How the layer's work is shared out between threads, and its tensors handed to the kernels.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace perennial {

// Tokens a thread takes at once: enough to amortise a kernel call, few enough to balance.
inline constexpr std::int64_t kTokenGrain = 16;

// While it lives, what this thread shares out it does alone.
class AloneScope {
 public:
  explicit AloneScope(bool alone) : before_(std::exchange(alone_, alone)) {}
  ~AloneScope() { alone_ = before_; }
  AloneScope(const AloneScope&) = delete;
  AloneScope& operator=(const AloneScope&) = delete;
  static bool alone() { return alone_; }

 private:
  inline static thread_local bool alone_ = false;
  bool before_;
};

inline std::int64_t sharing_threads() { return AloneScope::alone() ? 1 : at::get_num_threads(); }

template <class Work>
void share_out(std::int64_t begin, std::int64_t end, std::int64_t grain, const Work& work) {
  if (!AloneScope::alone()) {
    at::parallel_for(begin, end, grain, work);
  } else if (begin < end) {
    work(begin, end);
  }
}

// Too few tokens to keep every thread busy: heads or channels are shared out instead.
inline bool few_tokens(std::int64_t tokens) { return tokens < kTokenGrain * sharing_threads(); }

template <class Work>
void over_tokens(std::int64_t begin, std::int64_t end, const Work& work) {
  share_out(begin, end, kTokenGrain, work);
}

// The work on a token's experts is large: few tokens are shared out, too.
template <class Work>
void over_experts_tokens(std::int64_t begin, std::int64_t end, const Work& work) {
  const std::int64_t share = (end - begin) / sharing_threads();
  share_out(begin, end, std::clamp<std::int64_t>(share, 1, kTokenGrain), work);
}

inline const float* data(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}
inline float* out(at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr;
}

}  // namespace perennial
