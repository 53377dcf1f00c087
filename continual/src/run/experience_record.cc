// SPDX-License-Identifier: Apache-2.0
// Counts what a model has.
#include "run/experience_record.h"

#include <boost/json/value.hpp>

namespace perennial::continual {

namespace json = boost::json;

json::object experience_json(std::int64_t experience, std::int64_t steps, std::int64_t examples,
                             double seconds, Model& model, std::int64_t replay_bytes) {
  json::object fields{{"experience", experience},
                      {"steps", steps},
                      {"examples", examples},
                      {"seconds", seconds},
                      {"replay_bytes", replay_bytes}};
  if (seconds > 0) fields["examples_per_second"] = static_cast<double>(examples) / seconds;
  std::uint64_t parameters = static_cast<std::uint64_t>(model.dense_parameters());
  fields["dense_parameters"] = parameters;
  if (model.experts() != nullptr) {
    std::uint64_t experts = 0, of_experts = 0, bytes = 0;
    for (const auto& pool : model.experts()->pools()) {
      const PoolOptions& options = pool->options();
      experts += pool->experts();
      of_experts += pool->experts() * static_cast<std::uint64_t>(
                                          options.expert_width *
                                          ((options.glu ? 2 : 1) * options.d_in + options.d_out));
      bytes += pool->pages() * pool->payload_bytes();
    }
    fields["experts"] = experts;
    fields["expert_parameters"] = of_experts;
    fields["pool_bytes"] = bytes;
    fields["generations"] = model.experts()->generations();
    parameters += of_experts;
  }
  fields["parameters"] = parameters;
  return fields;
}

}  // namespace perennial::continual
