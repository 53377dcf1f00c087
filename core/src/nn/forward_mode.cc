// SPDX-License-Identifier: Apache-2.0
#include "nn/forward_mode.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "perennial/core/error.h"

namespace perennial {

at::Tensor experts_leaf(const ForwardMode& mode, const at::TensorOptions& like) {
  at::Tensor leaf = at::empty({0}, like);
  return leaf.requires_grad_(mode.expert_gradients && at::GradMode::is_enabled());
}

ExpertsRead::ExpertsRead(const Pool& pool, const ForwardMode& mode) {
  if (mode.reads_open) version_ = pool.experts_version();
}

void ExpertsRead::require_unchanged(const Pool& pool) const {
  if (!version_ || *version_ == pool.experts_version()) return;
  throw Error(
      "an optimizer step changed the experts between this forward and its backward, which would "
      "mix what was computed with the old ones and the new ones; call backward before the step");
}

}  // namespace perennial
