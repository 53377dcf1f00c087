// SPDX-License-Identifier: Apache-2.0
// Who answers an input where generations route for themselves.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "perennial/core/error.h"
#include "perennial/core/participant.h"

namespace perennial {

// Learns from the inputs of each generation, in one pass, which generation an input is for: an
// AnalyticGate or an AutoencoderGate. Generations begin and end here as in the pool.
// Single-threaded.
class GenerationGate : public Participant {
 public:
  virtual std::int64_t generations() const = 0;
  // Adds a generation. It is not chosen before it observed inputs.
  virtual void add_generation() = 0;
  // Learns from inputs x: (B, d_in) of a generation, with labels or targets y.
  virtual void observe(const at::Tensor& x, std::int64_t generation, const at::Tensor& y) = 0;
  // No more inputs will come for what is there: makes ready to answer, and drops what only learning
  // needs.
  virtual void close() = 0;
  // How foreign x: (B, d_in) is to a generation: near 1 for inputs like those that it observed,
  // larger for others. Throws Error for a gate that cannot tell.
  virtual double novelty(const at::Tensor& x, std::int64_t generation) const;
};

inline double GenerationGate::novelty(const at::Tensor&, std::int64_t) const {
  throw Error("this gate does not tell how foreign inputs are");
}

}  // namespace perennial
