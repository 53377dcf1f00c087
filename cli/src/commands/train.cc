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
#include "perennial/continual/task_defaults.h"
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
  bool further = false, follow = false, print_config = false;
  RunFlags run;
  RetentionFlags retention;
  CommonOptions common;
  bool stored = false;  // `config` is that of the store's run
  std::string choice;   // what was chosen for the task, unasked; told to the user

  // Sets the fields that are given over what `config` holds; empty when help was asked for.
  std::optional<Flags> parse(const std::vector<std::string>& args) {
    Flags flags(
        "train", kTrainCommand.summary,
        "perennial train --store digits --dataset mnist/ --stream permuted --experiences 5");
    flags.require("store", folder, "DIR", "the store's folder; made if there is none");
    flags.add_text("config", config_file, "FILE",
                   "settings as a JSON file, as --print-config writes it or config.json of a "
                   "benchmark's run; what it leaves out has its default; other flags come on top");
    flags.add_switch("print-config", print_config,
                     "print the settings that this command would run with, and leave");
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
    flags.add_set().add(config.stream, "stream").add(config.train, "train");
    flags.add(config.model, "model");
    if (!flags.parse(args)) return std::nullopt;
    // A table that grows is one stream of rows.
    if (follow && !flags.given("stream") && !stored) {
      config.stream.stream = continual::StreamKind::single;
    }
    if (!stored && config_file.empty()) {
      choice = continual::choose_for_task(
          config, [&](const std::string& option) { return flags.given(option); });
    }
    run.retention = retention.given(flags, storage::Retention());
    return flags;
  }

  // A flag that was given and that this run would not look at is a mistake.
  void refuse_idle(const Flags& flags) const {
    const auto refuse = [&](const std::vector<std::string>& names, const std::string& needs) {
      for (const std::string& name : names) {
        if (flags.given(name)) throw InvalidOptions("--" + dashed(name) + " needs " + needs);
      }
    };
    if (!follow) refuse({"follow_rows", "follow_idle"}, "--follow");
    if (follow) refuse({"continue"}, "no --follow, which goes on by itself");
    if (further && !flags.given("dataset")) {
      throw InvalidOptions("--continue needs --dataset: the further data");
    }
    for (const continual::UnreadOptions& unread : config.unread()) {
      refuse(unread.names, unread.needs);
    }
  }

 private:
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
  if (!command.choice.empty() && !command.common.quiet) {
    std::cerr << "note: " << command.choice << '\n';
  }
  if (command.print_config) {
    print_json(std::cout, to_json(command.config, JsonForm::nested));
    std::cout << '\n';
    return kExitOk;
  }
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
