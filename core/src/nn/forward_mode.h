// SPDX-License-Identifier: Apache-2.0
// How a forward through the layer is to be done, and what its backward must know of the experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "perennial/core/pool.h"

namespace perennial {

struct ForwardMode {
  bool training = false;          // batch norm takes the batch's statistics
  bool reads_open = false;        // the open generation is among those asked
  bool expert_gradients = false;  // its experts' gradients are left by the backward
  // Number of the draw of experts to leave out; none: no dropout.
  std::optional<std::uint64_t> dropout_draw;
};

// An input of the layer's autograd function that stands for the experts. Autograd asks for its
// gradient exactly when a backward is to leave theirs, and the output has a gradient where nothing
// else would give it one.
at::Tensor experts_leaf(const ForwardMode& mode, const at::TensorOptions& like);

// The experts that a forward read, as they were then.
class ExpertsRead {
 public:
  ExpertsRead() = default;
  ExpertsRead(const Pool& pool, const ForwardMode& mode);
  // Throws Error where a step has changed them since: what the forward saved is of other weights.
  void require_unchanged(const Pool& pool) const;

 private:
  std::optional<std::uint64_t> version_;  // empty: frozen ones alone, which never change
};

}  // namespace perennial
