// SPDX-License-Identifier: Apache-2.0
// Small labelled tables that are the same on every machine.
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "continual/run/trainer_testing.h"
#include "perennial/continual/trainer.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

inline constexpr std::int64_t kTableFeatures = 3;

// Value of feature j of a row of class c: the class's corner of a cube, and noise.
inline float table_value(std::int64_t c, std::int64_t j, kernels::RandomStream& random) {
  return static_cast<float>((c >> j & 1) * 100) + static_cast<float>(random.below(40));
}

// n rows of the classes first .. first + count - 1 in turn, labels numbered in `names`.
inline Dataset make_rows(std::int64_t n, std::int64_t first, std::int64_t count,
                         const std::vector<std::string>& names, std::uint64_t seed) {
  Dataset data;
  data.table = true;
  data.columns = {"width", "height", "weight"};
  data.x = torch::empty({n, kTableFeatures});
  data.y = torch::empty({n}, torch::kLong);
  kernels::RandomStream random(seed);
  float* x = data.x.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t c = first + i % count;
    data.y[i] = c;
    for (std::int64_t j = 0; j < kTableFeatures; ++j) *x++ = table_value(c, j, random);
  }
  data.label_names = names;
  return data;
}

// The same as CSV lines.
inline std::string csv_rows(std::int64_t n, std::int64_t first, std::int64_t count,
                            const std::vector<std::string>& names, std::uint64_t seed) {
  std::string text;
  kernels::RandomStream random(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t c = first + i % count;
    for (std::int64_t j = 0; j < kTableFeatures; ++j) {
      text += std::to_string(static_cast<int>(table_value(c, j, random)));
      text += ',';
    }
    text += names[static_cast<std::size_t>(c)];
    text += '\n';
  }
  return text;
}

inline RunConfig table_config(const std::string& strategy = "naive",
                              ModelKind model = ModelKind::mlp) {
  return small_config({"table", [&](RunConfig& config) {
                         config.stream.stream = StreamKind::single;
                         config.stream.experiences = 1;
                         config.train.strategy = StrategySet::parse("strategy", strategy);
                         config.train.epochs = 6;
                         config.model.model = model;
                         config.model.peer.query_norm = QueryNorm::layer;
                       }});
}

}  // namespace perennial::continual
