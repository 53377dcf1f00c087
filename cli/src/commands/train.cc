// SPDX-License-Identifier: Apache-2.0
// perennial train: learn a stream into a store, or go on where an earlier run stopped.
#include <filesystem>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/trainer.h"
#include "run_support.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

struct TrainCommand {
  std::string folder;
  continual::RunConfig config;
  RunFlags run;
  CommonOptions common;

  // Parses over what `config` holds; false when help was asked for.
  bool parse(const std::vector<std::string>& args) {
    Flags flags(
        "train", kTrainCommand.summary,
        "perennial train --store digits --dataset mnist/ --stream permuted --experiences 5");
    flags.require("store", folder, "DIR", "the store's folder; made if there is none");
    common.add_to(flags);
    run.add_to(flags);
    flags.add(config.stream).add(config.train).add(config.model);
    return flags.parse(args);
  }
};

int run_train(const std::vector<std::string>& args) {
  TrainCommand command;
  if (!command.parse(args)) return kExitOk;
  command.config.validate();
  std::unique_ptr<storage::PageStore> store;
  const std::filesystem::path folder = command.folder;
  if (std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    store = open_store(command.folder);
    // What is not given again is the stored run's, so that "train --store DIR" resumes.
    const auto stored = continual::stored_config(*store);
    if (stored.ok()) {
      command = TrainCommand{};
      command.config = *stored;
      command.parse(args);
      command.config.validate();
    } else if (stored.status().code() != storage::StatusCode::not_found) {
      throw StorageError(stored.status());
    }
  }
  command.run.apply();
  // What is wrong with the data or the options is found before a new store is made.
  const continual::Stream stream(command.config.stream);
  if (store == nullptr) {
    check_run(command.config, stream, command.run);
    store = open_store(command.folder, storage::OpenMode::either);
  }

  const std::string run_folder =
      (folder / "runs" / std::string(enum_name(command.config.train.strategy))).string();
  const continual::RunResult result = run_with_progress(
      command.config, stream, store.get(), run_folder, command.run,
      std::string(enum_name(command.config.train.strategy)), command.common.quiet);

  const Output output(command.common.json, command.common.quiet);
  print_result(output.text(), result);
  output.text() << "state digest " << result.state_digest << ", run folder " << run_folder << '\n';
  if (!result.finished) {
    output.text() << "stopped and committed; go on with: perennial train --store " << command.folder
                  << '\n';
  }
  boost::json::object json = result.to_json();
  json["store"] = command.folder;
  json["run_folder"] = run_folder;
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kTrainCommand{"train", CommandGroup::learn_and_use,
                            "learn a stream of experiences into a store, or resume a run",
                            run_train};

}  // namespace perennial::cli
