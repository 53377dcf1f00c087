// SPDX-License-Identifier: Apache-2.0
// perennial train: learn a stream into a store, or go on where an earlier run stopped.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/further_data.h"
#include "perennial/continual/trainer.h"
#include "retention_flags.h"
#include "run_support.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

struct TrainCommand {
  std::string folder, config_file;
  continual::RunConfig config;
  continual::FollowOptions following;
  bool further = false, follow = false;
  RunFlags run;
  RetentionFlags retention;
  CommonOptions common;
  bool stored = false;  // `config` is that of the store's run

  // Sets the fields that are given over what `config` holds; empty when help was asked for.
  std::optional<Flags> parse(const std::vector<std::string>& args) {
    Flags flags(
        "train", kTrainCommand.summary,
        "perennial train --store digits --dataset mnist/ --stream permuted --experiences 5");
    flags.require("store", folder, "DIR", "the store's folder; made if there is none");
    flags.add_text("config", config_file, "FILE",
                   "settings as a JSON file, as config.json of a benchmark's run; other flags come "
                   "on top");
    flags
        .add_switch("continue", further,
                    "learn --dataset as further data of a run over --stream single that has "
                    "finished: one more experience, which may bring new classes")
        .add_switch("follow", follow,
                    "learn --dataset, a CSV or JSONL file or a pipe, as it grows; go on where "
                    "following ended. Ctrl-C ends it")
        .add(following);
    common.add_to(flags);
    run.add_to(flags);
    run.add_training_to(flags);
    retention.add_to(flags);
    flags.add(config.stream).add(config.train).add(config.model);
    if (!flags.parse(args)) return std::nullopt;
    // A table that grows is one stream of rows.
    if (follow && !flags.given("stream") && !stored) {
      config.stream.stream = continual::StreamKind::single;
    }
    run.retention = retention.given(flags, storage::Retention());
    return flags;
  }

  // A flag that was given and that this run would not look at is a mistake.
  void refuse_idle(const Flags& flags) const {
    const auto refuse = [&](const std::vector<std::string>& names, const std::string& needs) {
      for (const std::string& name : names) {
        // Who repeats runs over seeds gives all of them, also where nothing draws from one.
        if (name.ends_with("_seed")) continue;
        if (flags.given(name)) throw InvalidOptions("--" + dashed(name) + " needs " + needs);
      }
    };
    if (!follow) refuse({"follow_rows", "follow_idle"}, "--follow");
    if (follow) refuse({"continue"}, "no --follow, which goes on by itself");
    if (further && !flags.given("dataset")) {
      throw InvalidOptions("--continue needs --dataset: the further data");
    }
    if (config.model.model == continual::ModelKind::peer) {
      refuse({"inputs", "hidden", "depth"}, "--model mlp; the model is peer");
    } else {
      const std::string peer = "--model peer; the model is mlp";
      refuse({"spare_classes", "width", "expert_lr", "expert_optimizer", "expert_momentum",
              "expert_weight_decay", "router_lr", "budget"},
             peer);
      // Seed and dropout are either model's; the widths are no flags.
      refuse(names_of<PeerOptions>({"seed", "dropout", "d_in", "d_out"}), peer);
    }
    const std::vector<std::string> used = continual::options_of(config.train.strategy);
    refuse(names_of<continual::StrategyOptions>(used),
           "a strategy that reads it; this run has " + config.train.strategy.text());
    if (config.task() == continual::TaskKind::regression) {
      refuse({"lwf_temperature"}, "--task classification; squared differences have no temperature");
    }
    if (config.train.strategy_options.growth == continual::GrowthKind::drift) {
      refuse({"return_examples"},
             "--growth experience; a drift is judged by the batches held back");
    } else {
      refuse({"drift_threshold", "drift_steps", "drift_window"}, "--growth drift");
    }
    if (config.train.strategy_options.growth_size == continual::GrowthSize::full) {
      refuse({"growth_start", "growth_loss", "growth_window"}, "--growth-size need");
    }
    if (config.model.head == continual::HeadKind::trained) {
      refuse({"head_inputs", "head_width", "head_ridge", "head_pool"}, "--head analytic");
      if (config.model.inputs == continual::InputKind::raw) {
        refuse({"head_filters", "head_filter_size", "head_grid"},
               "--head analytic, or --inputs filters");
      }
    } else {
      refuse(
          {"lr", "lr_schedule", "warmup", "optimizer", "weight_decay", "clip_norm", "micro_batch",
           "router_lr", "expert_lr", "expert_optimizer", "expert_momentum", "expert_weight_decay"},
          "--head trained; an analytic head is solved");
      if (config.model.head_pool == 0) refuse({"amp"}, "--head-pool; the run has no pool");
    }
    const GateKind gate = config.gate();
    const std::string has = " gate; this run has gate " + std::string(enum_name(gate));
    if (gate != GateKind::analytic) {
      const std::vector<std::string> of_both = {"gate_seed", "gate_answer", "gate_temperature"};
      refuse({"return_novelty", "return_examples"}, "the analytic" + has);
      refuse(names_of<AnalyticGateOptions>(
                 gate == GateKind::autoencoder ? of_both : std::vector<std::string>{}),
             "the analytic" + has);
    }
    if (gate != GateKind::autoencoder) {
      refuse(names_of<AutoencoderGateOptions>(), "the autoencoder" + has);
    }
  }

 private:
  // The fields of `Options`, but for some.
  template <class Options>
  static std::vector<std::string> names_of(const std::vector<std::string>& except = {}) {
    std::vector<std::string> names;
    auto collect = [&](std::string_view name, auto&, std::string_view, auto...) {
      if (std::find(except.begin(), except.end(), name) == except.end()) names.emplace_back(name);
    };
    Options options;
    Options::visit(options, collect);
    return names;
  }

  static std::string dashed(std::string name) {
    std::replace(name.begin(), name.end(), '_', '-');
    return name;
  }
};

// The configuration of the run in `store`, if it holds one.
std::optional<continual::RunConfig> config_in(const storage::PageStore& store) {
  auto stored = continual::stored_config(store);
  if (stored.ok()) return *stored;
  if (stored.status().code() == storage::StatusCode::not_found) return std::nullopt;
  throw StorageError(stored.status());
}

// The stream that the command is about: of a new run, of the store's, or of further data for it.
continual::Stream stream_of(const TrainCommand& command, const storage::PageStore* store) {
  if (command.further) {
    if (store == nullptr) {
      throw InvalidOptions("--continue needs a store that has learnt before; there is none in " +
                           command.folder);
    }
    return continual::further_stream(command.config, *store);
  }
  if (command.stored) return continual::run_stream(command.config, *store);
  return continual::Stream(command.config.stream);
}

continual::RunResult learn(const TrainCommand& command, std::unique_ptr<storage::PageStore>& store,
                           const std::string& run_folder, std::vector<std::string>& notes) {
  // What is wrong with the data or the options is found before a new store is made.
  const continual::Stream stream = stream_of(command, store.get());
  notes = stream.notes();
  if (!command.common.quiet) {
    for (const std::string& note : notes) std::cerr << "note: " << note << '\n';
  }
  if (store == nullptr) {
    check_run(command.config, stream, command.run);
    store = open_store(command.folder, storage::OpenMode::either);
  }
  return run_with_progress(command.config, stream, store.get(), run_folder, command.run,
                           command.config.train.strategy.text(), command.common.quiet);
}

std::optional<continual::RunResult> follow(const TrainCommand& command,
                                           std::unique_ptr<storage::PageStore>& store,
                                           const std::string& run_folder) {
  const auto make_store = [&] {
    store = open_store(command.folder, storage::OpenMode::either);
    return store.get();
  };
  return follow_with_progress(command.config, command.following, store.get(), make_store,
                              run_folder, command.run, command.config.train.strategy.text(),
                              command.common.quiet);
}

int run_train(const std::vector<std::string>& args) {
  // Checks what the flags say of themselves, and finds the store's folder.
  TrainCommand given;
  if (!given.parse(args)) return kExitOk;
  const std::string folder_name = given.folder;
  TrainCommand command;
  if (!given.config_file.empty()) command.config = read_config(given.config_file);
  std::unique_ptr<storage::PageStore> store;
  const std::filesystem::path folder = folder_name;
  if (std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    // One whose creation was interrupted is made now.
    store = open_store(folder_name, storage::OpenMode::either);
    // What is not given again is the stored run's, so that "train --store DIR" resumes.
    if (auto stored = config_in(*store); stored && given.config_file.empty()) {
      command.config = *std::move(stored);
      command.stored = true;
    }
  }
  command.refuse_idle(*command.parse(args));
  command.config.validate();
  command.run.apply(command.common);
  const std::string run_folder = (folder / "runs" / command.config.train.strategy.text()).string();
  std::vector<std::string> notes;
  std::optional<continual::RunResult> learnt;
  if (command.follow) {
    learnt = follow(command, store, run_folder);
  } else {
    learnt = learn(command, store, run_folder, notes);
  }
  const Output output(command.common.json, command.common.quiet);
  if (!learnt) {
    output.text() << "ended before the first experience's rows were there; nothing was learnt\n";
    output.finish({{"finished", false}, {"store", command.folder}});
    return kExitOk;
  }
  const continual::RunResult& result = *learnt;
  print_result(output.text(), result);
  output.text() << "state digest " << result.state_digest << ", run folder " << run_folder << '\n';
  if (!result.finished) {
    output.text() << "stopped and committed; go on with: perennial train --store " << command.folder
                  << (command.follow ? " --follow" : "") << '\n';
  }
  boost::json::object json = result.to_json();
  json["store"] = command.folder;
  json["run_folder"] = run_folder;
  json["data_notes"] = boost::json::array(notes.begin(), notes.end());
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kTrainCommand{"train", CommandGroup::learn_and_use,
                            "learn a stream of experiences into a store, or resume a run",
                            run_train};

}  // namespace perennial::cli
