// SPDX-License-Identifier: Apache-2.0
// How much each dense parameter matters to what was learnt: sums over examples of powers of their
// own gradients.
#pragma once

#include <cstdint>

#include "model/parameter_vector.h"
#include "strategies/replay_buffer.h"

namespace perennial::continual {

// How the diagonal of the Fisher information is estimated, all averaged over examples x:
//   exact: sum over classes c of p(c|x) (d log p(c|x) / d theta)^2, the definition;
//   sample: the same with one class drawn from p(.|x), unbiased;
//   empirical: with the true label; not the Fisher information away from the optimum;
//   batched: the square of a minibatch's mean gradient at the true labels, averaged over
//     minibatches (what Avalanche computes); smaller by about the batch size.
enum class FisherKind : std::uint8_t { exact, sample, empirical, batched };
EnumNames<FisherKind> enum_names(FisherKind);

// The gradient of example n in a dense layer y = x W' + b is the outer product of its output's
// gradient d_n and its input x_n. So sum_n d_n,i^2 x_n,j^2 is one matrix product, (d o d)' (x o x),
// and the same holds for absolute values: per-example gradients cost about what one backward pass
// of the batch does, and are never made. Needs Model::traced_forward().

// Where tasks are known (scenario task) the outputs are those of an example's own classes, as in
// the loss: the others' have no part in probabilities or norms, and the importance of what leads to
// them alone is exactly 0.

struct FisherOptions {
  FisherKind kind = FisherKind::sample;
  std::int64_t examples = 0;  // of the experience, by chance; 0 = all
  std::int64_t batch = 0;     // batched: examples a minibatch
};

// The diagonal of the Fisher information of the experience's training examples at the model's
// parameters. `labels` is what FisherKind::sample draws from. Cost: about one training pass without
// updates; exact: one a class.
ParameterVector fisher_information(Model& model, const Stream& stream, std::int64_t experience,
                                   const FisherOptions& options, StateRandom& labels);

// Mean over the experience's training examples of |d |outputs|^2 / d theta|.
ParameterVector output_sensitivity(Model& model, const Stream& stream, std::int64_t experience,
                                   std::int64_t examples);

}  // namespace perennial::continual
