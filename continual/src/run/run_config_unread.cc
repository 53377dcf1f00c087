// SPDX-License-Identifier: Apache-2.0
// Which options a run's configuration leaves without a reader.
#include <algorithm>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

namespace {

template <class Options>
std::vector<std::string> names_but(const std::vector<std::string>& left_out) {
  std::vector<std::string> names = option_names<Options>();
  std::erase_if(names, [&](const std::string& name) {
    return std::ranges::find(left_out, name) != left_out.end();
  });
  return names;
}

void add_unread_of_model(const RunConfig& config, std::vector<UnreadOptions>& unread) {
  if (config.model.model == ModelKind::peer) {
    unread.push_back({{"inputs", "hidden", "depth"}, "--model mlp; the model is peer"});
    return;
  }
  const std::string peer = "--model peer; the model is mlp";
  unread.push_back({{"spare_classes", "width", "expert_lr", "expert_optimizer", "expert_momentum",
                     "expert_weight_decay", "router_lr", "budget"},
                    peer});
  unread.push_back({names_but<PeerOptions>({"seed", "dropout", "d_in", "d_out"}), peer});
}

void add_unread_of_head(const RunConfig& config, std::vector<UnreadOptions>& unread) {
  if (config.model.head == HeadKind::trained) {
    unread.push_back({{"head_inputs", "head_width", "head_ridge", "head_pool"}, "--head analytic"});
    if (config.model.inputs == InputKind::raw) {
      unread.push_back({{"head_filters", "head_filter_size", "head_grid"},
                        "--head analytic, or --inputs filters"});
    }
    return;
  }
  unread.push_back(
      {{"lr", "lr_schedule", "warmup", "optimizer", "weight_decay", "clip_norm", "micro_batch",
        "router_lr", "expert_lr", "expert_optimizer", "expert_momentum", "expert_weight_decay"},
       "--head trained; an analytic head is solved"});
  if (config.model.head_pool == 0) {
    unread.push_back({{"amp"}, "--head-pool; the run has no pool"});
  }
}

void add_unread_of_gate(const RunConfig& config, std::vector<UnreadOptions>& unread) {
  const GateKind gate = config.gate();
  const std::string has = " gate; this run has gate " + std::string(enum_name(gate));
  if (gate != GateKind::analytic) {
    const std::vector<std::string> of_both = {"gate_seed", "gate_answer", "gate_temperature"};
    unread.push_back({{"return_novelty", "return_examples"}, "the analytic" + has});
    unread.push_back({names_but<AnalyticGateOptions>(
                          gate == GateKind::autoencoder ? of_both : std::vector<std::string>{}),
                      "the analytic" + has});
  }
  if (gate != GateKind::autoencoder) {
    unread.push_back({option_names<AutoencoderGateOptions>(), "the autoencoder" + has});
  }
}

}  // namespace

std::vector<UnreadOptions> RunConfig::unread() const {
  std::vector<UnreadOptions> unread;
  add_unread_of_model(*this, unread);
  unread.push_back({names_but<StrategyOptions>(train.strategy.options()),
                    "a strategy that reads it; this run has " + train.strategy.text()});
  for (const StrategyDeclaration* part : train.strategy.parts()) {
    if (part->unread == nullptr) continue;
    for (UnreadOptions& some : part->unread(*this)) unread.push_back(std::move(some));
  }
  add_unread_of_head(*this, unread);
  add_unread_of_gate(*this, unread);
  // Who repeats runs over seeds gives all of them, also where nothing draws from one.
  for (UnreadOptions& some : unread) {
    std::erase_if(some.names, [](const std::string& name) { return name.ends_with("_seed"); });
  }
  return unread;
}

}  // namespace perennial::continual
