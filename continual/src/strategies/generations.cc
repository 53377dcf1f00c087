// SPDX-License-Identifier: Apache-2.0
#include "strategies/generations.h"

#include <limits>
#include <utility>

namespace perennial::continual {

namespace json = boost::json;

std::uint32_t open_generation(StrategyContext& context) {
  const std::uint32_t opened = context.model.grow(0, context.config.first_columns());
  const Generation& generation = context.model.experts()->pools().front()->generation(opened);
  context.log("grow", json::object{{"experience", context.experience},
                                   {"generation", generation.index},
                                   {"first_row", generation.first_row},
                                   {"rows", generation.rows},
                                   {"cols", generation.cols}});
  return generation.index;
}

void freeze_generation(StrategyContext& context) {
  const std::uint32_t generation = *context.model.experts()->open_generation();
  const storage::Digest digest = context.model.freeze();
  context.log("freeze", json::object{{"experience", context.experience},
                                     {"generation", generation},
                                     {"digest", digest.hex()}});
}

std::optional<std::int64_t> returned_to(StrategyContext& context, const torch::Tensor& x,
                                        bool open) {
  const TrainOptions& options = context.config.train;
  const GenerationGate* gate = context.model.gate();
  if (options.return_novelty == 0 || gate == nullptr) return std::nullopt;
  const bool leave_last = !open && context.model.experts()->open_generation().has_value();
  std::int64_t nearest = 0;
  double least = std::numeric_limits<double>::infinity();
  json::array all;
  for (std::int64_t g = 0; g < gate->generations() - (leave_last ? 1 : 0); ++g) {
    const double novelty = gate->novelty(x, g);
    all.push_back(novelty);
    if (novelty < least) {
      least = novelty;
      nearest = g;
    }
  }
  const bool returns = least < options.return_novelty;
  context.log("novelty", json::object{{"experience", context.experience},
                                      {"novelty", std::move(all)},
                                      {"returns", returns}});
  if (!returns) return std::nullopt;
  return nearest;
}

}  // namespace perennial::continual
