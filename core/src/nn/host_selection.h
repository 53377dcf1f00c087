// SPDX-License-Identifier: Apache-2.0
// Retrieval, scores and their gradients on the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/router.h"
#include "nn/selection.h"

namespace perennial {

// Of a normed query (B, C), by the router's packed sub-keys.
Retrieved retrieve_experts(const Router& router, const at::Tensor& query);

// Stateless: one for all layers.
std::shared_ptr<const SelectionKernels> host_selection();

}  // namespace perennial
