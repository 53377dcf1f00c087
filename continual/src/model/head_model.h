// SPDX-License-Identifier: Apache-2.0
// A model whose classes or numbers are solved by an analytic head over features that never change.
#pragma once

#include <memory>

#include "perennial/continual/model.h"

namespace perennial::continual {

// The head's features are, of images, random convolutions (head_filters) and the output of a PEER
// layer (head_pool wide) whose experts keep their initial values: as the head is linear, it solves
// for what each retrieved expert says about the classes. Of other inputs they are ColumnFeatures,
// without a layer, and the head chooses how many of them it uses and its ridge strength
// (head_inputs says which of the two, and the head's record in the store which it was). Features
// are the same from the first example to the last, so classes may come in any order. Learns by
// observing, one pass. Of it, the PEER layer alone is placed.
//
// Throws InvalidOptions also for options of the one kind with the other's features, which would do
// nothing.
std::unique_ptr<Model> make_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader* store,
                                       std::int64_t budget_bytes, ImageShape image,
                                       const Placement& placement);
// Throws StorageError, DataError.
std::unique_ptr<Model> load_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader& store,
                                       std::int64_t budget_bytes, std::int64_t learnt_classes,
                                       const Placement& placement);

}  // namespace perennial::continual
