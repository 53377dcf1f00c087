// SPDX-License-Identifier: Apache-2.0
// The order in which a split stream takes the classes of its data.
#pragma once

#include "perennial/continual/dataset.h"
#include "perennial/continual/stream_options.h"

namespace perennial::continual {

// Numbers the classes in the order that options.class_order says: class 0 comes first. Throws
// InvalidOptions for a list that does not have each class once.
void order_classes(TrainTest& data, const StreamOptions& options);

}  // namespace perennial::continual
