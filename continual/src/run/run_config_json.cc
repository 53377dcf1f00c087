// SPDX-License-Identifier: Apache-2.0
// A run's configuration as it is stored and compared.
#include <boost/json/serialize.hpp>
#include <set>
#include <span>
#include <utility>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// The options in the order in which stores have them. What begins with "?" came after version 0.1
// and is left out at its default, so that what was learnt before keeps its digest; so is what is
// not here, which follows.
constexpr std::string_view kStreamFields[] = {"stream",
                                              "dataset",
                                              "experiences",
                                              "scenario",
                                              "angle_step",
                                              "gradual",
                                              "blur",
                                              "cycle",
                                              "limit",
                                              "test_limit",
                                              "?validation_share",
                                              "stream_seed",
                                              "?class_order",
                                              "normalize",
                                              "?task",
                                              "?target_column",
                                              "label_column",
                                              "header",
                                              "?separator",
                                              "?encoding",
                                              "bad_rows",
                                              "missing_values",
                                              "test_share"};
constexpr std::string_view kModelFields[] = {
    "model",        "inputs",       "hidden",      "depth",      "width",        "spare_classes",
    "head",         "?head_inputs", "?head_width", "head_ridge", "head_filters", "head_filter_size",
    "head_grid",    "head_pool",    "heads",       "top_k",      "d_key",        "rows",
    "cols",         "routing",      "sub_keys",    "score",      "activation",   "glu",
    "expert_width", "dtype",        "dropout",     "query_norm", "norm_eps",     "norm_momentum",
    "key_scale",    "distribution", "u_scale",     "v_scale",    "page_bytes",   "seed"};
constexpr std::string_view kTrainFields[] = {"strategy",
                                             "output_regularisation",
                                             "growth",
                                             "growth_size",
                                             "growth_start",
                                             "growth_loss",
                                             "growth_window",
                                             "drift_threshold",
                                             "drift_steps",
                                             "drift_window",
                                             "l2_strength",
                                             "ewc_strength",
                                             "online_ewc_strength",
                                             "ewc_gamma",
                                             "fisher",
                                             "fisher_examples",
                                             "si_strength",
                                             "si_damping",
                                             "mas_strength",
                                             "lwf_strength",
                                             "lwf_temperature",
                                             "memory",
                                             "buffer",
                                             "memory_fill",
                                             "replay_batch",
                                             "der_alpha",
                                             "der_beta",
                                             "task_memory",
                                             "gem_margin",
                                             "gdumb_epochs",
                                             "update_slots",
                                             "packnet_prune",
                                             "packnet_retrain",
                                             "strategy_seed",
                                             "epochs",
                                             "batch",
                                             "?micro_batch",
                                             "optimizer",
                                             "?weight_decay",
                                             "?clip_norm",
                                             "?amp",
                                             "lr",
                                             "?router_lr",
                                             "expert_lr",
                                             "lr_schedule",
                                             "?warmup",
                                             "expert_optimizer",
                                             "expert_momentum",
                                             "expert_weight_decay",
                                             "gate",
                                             "features",
                                             "ridge",
                                             "gate_seed",
                                             "gate_features",
                                             "gate_filters",
                                             "gate_filter_size",
                                             "gate_grid",
                                             "gate_answer",
                                             "gate_temperature",
                                             "head_weight",
                                             "autoencoder_code",
                                             "autoencoder_lr",
                                             "return_novelty",
                                             "return_examples",
                                             "train_seed",
                                             "commit_every",
                                             "anytime_every",
                                             "anytime_first",
                                             "anytime_examples"};

json::object stored(const json::object& fields, const json::object& defaults,
                    std::span<const std::string_view> first) {
  json::object made;
  std::set<std::string_view> listed;
  const auto add = [&](std::string_view name, bool later) {
    if (!later || fields.at(name) != defaults.at(name)) made[name] = fields.at(name);
    listed.insert(name);
  };
  for (const std::string_view name : first) {
    const bool later = name.starts_with('?');
    add(name.substr(later ? 1 : 0), later);
  }
  for (const auto& field : fields) {
    if (!listed.contains(field.key())) add(field.key(), true);
  }
  return made;
}

}  // namespace

json::object RunConfig::settings() const {
  return {{"stream", perennial::to_json(stream)},
          {"model", perennial::to_json(model)},
          {"train", perennial::to_json(train)}};
}

json::object RunConfig::to_json() const {
  const json::object all = settings(), defaults = RunConfig().settings();
  const auto section = [&](std::string_view name, std::span<const std::string_view> first) {
    return stored(all.at(name).as_object(), defaults.at(name).as_object(), first);
  };
  return {{"stream", section("stream", kStreamFields)},
          {"model", section("model", kModelFields)},
          {"train", section("train", kTrainFields)}};
}

RunConfig RunConfig::from_json(const json::object& object) {
  return perennial::from_json<RunConfig>(object);
}

std::vector<std::string> differences(const RunConfig& from, const RunConfig& asked) {
  std::vector<std::string> fields;
  const json::object a = from.settings(), b = asked.settings();
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
