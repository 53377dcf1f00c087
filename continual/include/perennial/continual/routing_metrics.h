// SPDX-License-Identifier: Apache-2.0
// How the routing of old inputs has changed since their experience was learnt. A PEER layer's
// retrieval of the same inputs, taken twice, is all they need; a network has them layer by layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace perennial::continual {

// B inputs, H heads, K top-k.
//
// routing_drift = share of the inputs for which some head retrieves another set of experts now than
// then; order and scores do not count. ids: (B, H, K) int64 as PeerImpl::retrieve gives them, of
// equal shape. Throws Error for other tensors, or without inputs. Cost: O(B H K log K).
double routing_drift(const at::Tensor& ids_then, const at::Tensor& ids_now);

// leak = share of the slots (input, head, rank) that hold an expert of a newer generation: one
// whose row is `first_newer_row` or more, the first row of the generation after the inputs' own.
// Throws Error as routing_drift does.
double routing_leak(const at::Tensor& ids_now, std::uint32_t first_newer_row);

// weight_forgetting = mean over the old experiences of (accuracy then - accuracy now), both with
// the router as of then and with newer experts masked: what changed weights alone have cost.
// Exactly 0 where the experts and what they read are frozen. Throws Error for lengths that differ
// or are 0.
double weight_forgetting(const std::vector<double>& accuracy_then,
                         const std::vector<double>& accuracy_now);

}  // namespace perennial::continual
