// SPDX-License-Identifier: Apache-2.0
#include "nn/batch_invariant.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "perennial/core/error.h"
#include "perennial/kernels/matmul.h"

namespace perennial {

at::Tensor rows_times(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& bias) {
  const std::int64_t n = weights.size(0), k = weights.size(1);
  if (!x.is_cpu())
    throw Error("gates and heads expect CPU tensors, not one on " + x.device().str());
  const float* added = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  at::Tensor out = at::empty({x.size(0), n});
  at::parallel_for(0, x.size(0), kRowGrain, [&](auto begin, auto end) {
    kernels::matmul_nt(end - begin, n, k, x.const_data_ptr<float>() + begin * k, k,
                       weights.const_data_ptr<float>(), k, added,
                       out.mutable_data_ptr<float>() + begin * n, n);
  });
  return out;
}

}  // namespace perennial
