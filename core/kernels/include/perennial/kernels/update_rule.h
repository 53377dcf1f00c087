// SPDX-License-Identifier: Apache-2.0
// The update rules of the sparse optimizer and their numbers. C++17, for host and device.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// g is an expert's gradient, w its weights, t how often it has been updated, this time included.
enum class UpdateAlgorithm : std::uint8_t {
  // g += weight_decay w; w -= lr g. With momentum (Polyak's heavy ball, as torch.optim.SGD):
  // b = momentum b + g; w -= lr b, or with nesterov w -= lr (g + momentum b).
  sgd,
  // Kingma & Ba 2015, algorithm 1, weight decay added to the gradient (L2): g += weight_decay w.
  adam,
  // Loshchilov & Hutter 2019: Adam with decoupled decay, w *= 1 - lr weight_decay.
  adamw,
  // Adagrad with one sum for each row of an embedding table (FBGEMM's EXACT_ROWWISE_ADAGRAD, DLRM's
  // RWSAdagrad). Here u, v and w of an expert are such rows, of D floats:
  // g += weight_decay w; s += mean over D of g^2; w -= lr / (sqrt(s) + eps) g.
  rowwise_adagrad,
};

struct UpdateRule {
  UpdateAlgorithm algorithm = UpdateAlgorithm::adam;
  double lr = 1e-3;
  double momentum = 0;    // sgd
  bool nesterov = false;  // sgd with momentum
  double beta1 = 0.9;     // adam, adamw
  double beta2 = 0.999;
  double eps = 1e-8;  // adam, adamw, rowwise_adagrad
  double weight_decay = 0;
};

}  // namespace perennial::kernels
