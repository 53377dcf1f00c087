// SPDX-License-Identifier: Apache-2.0
// The multilayer perceptron, and the one that grows by columns.
#pragma once

#include <cstdint>
#include <memory>

#include "perennial/continual/model.h"

namespace perennial::continual {

// `depth` hidden layers of `hidden` ReLU units, with dropout after each in training. The store
// knows `learnt_classes` of the classes.
std::unique_ptr<Model> make_mlp(const RunConfig& config, std::int64_t features,
                                std::int64_t classes);
std::unique_ptr<Model> load_mlp(const RunConfig& config, std::int64_t features,
                                std::int64_t classes, const storage::PageReader& store,
                                std::int64_t learnt_classes);

// A column of such layers for each experience (progressive networks): layer i > 0 of column k reads
// layer i - 1 of columns 0 to k. Only the newest column trains. Starts with one.
std::unique_ptr<Model> make_columns(const RunConfig& config, std::int64_t features,
                                    std::int64_t classes);
std::unique_ptr<Model> load_columns(const RunConfig& config, std::int64_t features,
                                    std::int64_t classes, const storage::PageReader& store);

}  // namespace perennial::continual
