// SPDX-License-Identifier: Apache-2.0
// A run's configuration as it is stored and compared.
#include <array>
#include <boost/json/serialize.hpp>
#include <utility>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// Options that there were not always. At their defaults they are left out, so that what was learnt
// before keeps its digest.
constexpr std::array<std::pair<const char*, const char*>, 14> kLaterFields = {{
    {"stream", "task"},
    {"stream", "target_column"},
    {"stream", "separator"},
    {"stream", "encoding"},
    {"stream", "class_order"},
    {"stream", "validation_share"},
    {"model", "head_inputs"},
    {"model", "head_width"},
    {"train", "amp"},
    {"train", "micro_batch"},
    {"train", "weight_decay"},
    {"train", "clip_norm"},
    {"train", "router_lr"},
    {"train", "warmup"},
}};

json::object all_fields(const RunConfig& config) {
  return {{"stream", perennial::to_json(config.stream)},
          {"model", perennial::to_json(config.model)},
          {"train", perennial::to_json(config.train)}};
}

}  // namespace

json::object RunConfig::to_json() const {
  json::object object = all_fields(*this);
  const json::object defaults = all_fields(RunConfig());
  for (const auto& [section, field] : kLaterFields) {
    json::object& fields = object.at(section).as_object();
    if (fields.at(field) == defaults.at(section).at(field)) fields.stable_erase(field);
  }
  return object;
}

RunConfig RunConfig::from_json(const json::object& object) {
  RunConfig config;
  config.stream = perennial::from_json<StreamOptions>(object.at("stream").as_object());
  config.model = perennial::from_json<ModelOptions>(object.at("model").as_object());
  config.train = perennial::from_json<TrainOptions>(object.at("train").as_object());
  return config;
}

std::vector<std::string> differences(const RunConfig& stored, const RunConfig& asked) {
  std::vector<std::string> fields;
  const json::object a = all_fields(stored), b = all_fields(asked);
  for (const auto& section : a) {
    const json::object& other = b.at(section.key()).as_object();
    for (const auto& field : section.value().as_object()) {
      // Where the data lies decides nothing; that they are the same is checked by their digest.
      if (field.key() == "dataset" || field.value() == other.at(field.key())) continue;
      fields.push_back(std::string(section.key()) + "." + std::string(field.key()) + ": " +
                       json::serialize(field.value()) + " stored, " +
                       json::serialize(other.at(field.key())) + " asked for");
    }
  }
  return fields;
}

void refuse_differing(const std::string& what, const std::vector<std::string>& fields,
                      const std::string& remedy) {
  if (fields.empty()) return;
  std::string message = what + "; ";
  for (const std::string& field : fields) message += field + "; ";
  throw InvalidOptions(message + remedy);
}

}  // namespace perennial::continual
