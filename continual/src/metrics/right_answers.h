// SPDX-License-Identifier: Apache-2.0
// Which answers are right, and how many examples are asked about at once.
#pragma once

#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

// Test examples a prediction call takes: bounds the memory of an evaluation.
inline constexpr std::int64_t kTestBatch = 1000;

// (B) bool: whether the likeliest class, among those of the example's experience where that is
// known, is the example's.
inline torch::Tensor right_answers(const Stream& stream, const Prediction& prediction,
                                   const Batch& batch) {
  return stream.restrict_answers(prediction.probabilities, batch.experience).argmax(1).eq(batch.y);
}

}  // namespace perennial::continual
