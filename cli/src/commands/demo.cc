// SPDX-License-Identifier: Apache-2.0
// perennial demo: the main job, five permutations of Fashion-MNIST, with naive training for
// contrast.
#include <chrono>
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

// Five pixel permutations, one pass each, a PEER layer from pixels to classes, 32 x 32 new experts
// a generation. The other defaults are the library's.
continual::RunConfig demo_config(std::int64_t limit) {
  continual::RunConfig config;
  config.stream.stream = continual::StreamKind::permuted;
  config.stream.experiences = 5;
  config.stream.limit = limit;
  config.train.strategy = "grow_freeze";
  return config;
}

// The same layer, optimizer, passes and seeds; one pool of as many experts as the grown one has in
// all.
continual::RunConfig naive_config(continual::RunConfig config) {
  config.train.strategy = "naive";
  config.model.peer.rows *= config.stream.experiences;
  return config;
}

boost::json::array snapshots_json(const storage::PageStore& store) {
  boost::json::array snapshots;
  for (const storage::CommitInfo& info : store.log()) {
    if (!info.snapshot.empty()) snapshots.push_back(commit_json(info));
  }
  return snapshots;
}

void print_snapshots(std::ostream& out, const storage::PageStore& store) {
  Table table(
      {{"snapshot", Align::left}, {"commit"}, {"pages"}, {"added"}, {"state digest", Align::left}});
  std::uint64_t pages = 0, bytes = 0;
  for (const storage::CommitInfo& info : store.log()) {
    // What a snapshot added includes the commits since the one before.
    pages += info.pages_written;
    bytes += info.file_bytes;
    if (info.snapshot.empty()) continue;
    table.add_row({info.snapshot, std::to_string(info.commit),
                   format_count(static_cast<std::int64_t>(pages)), format_bytes(bytes),
                   info.state_digest.hex()});
    pages = bytes = 0;
  }
  table.print(out);
}

int run_demo(const std::vector<std::string>& args) {
  std::string folder = "perennial-demo";
  std::int64_t limit = 0;
  RunFlags run;
  CommonOptions common;
  Flags flags("demo", kDemoCommand.summary, "perennial demo --store demo-store");
  flags.add_text("store", folder, "DIR", "where what is learnt goes")
      .add("limit", limit, "training examples an experience, 0 = all 60,000", Range{0, 60000});
  common.add_to(flags);
  run.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  run.apply(common);
  const auto start = std::chrono::steady_clock::now();

  const continual::RunConfig config = demo_config(limit);
  const continual::Stream stream(config.stream);
  // What is wrong with the options is found before a new store is made.
  if (!std::filesystem::exists(folder)) check_run(config, stream, run);
  const auto store = open_store(folder, storage::OpenMode::either);
  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  const auto introduce = [&] {
    out << "Learning Fashion-MNIST, then 4 pixel permutations of it, one pass each: no replay, and "
           "no task ids at test.\nEach opens a generation of 32 x 32 experts, which is frozen and "
           "kept as a snapshot in "
        << folder << ".\n"
        << std::endl;
  };

  const continual::RunResult grown =
      run_with_progress(config, stream, store.get(), folder + "/runs/grow_freeze", run,
                        "grow_freeze", common.quiet, introduce);
  boost::json::object json = grown.to_json();
  json["store"] = folder;
  if (!grown.finished) {
    out << "stopped and committed; go on with: perennial demo --store " << folder
        << (limit > 0 ? " --limit " + std::to_string(limit) : "") << '\n';
    output.finish(json);
    return kExitOk;
  }
  out << "grow_freeze (a generation for each experience, analytic gate)\n";
  print_result(out, grown);
  const std::uint64_t store_bytes = value_or_throw(store->size_bytes());
  out << "\nthe store holds " << format_bytes(store_bytes) << "; each snapshot added:\n";
  print_snapshots(out, *store);

  const continual::RunConfig contrast = naive_config(config);
  RunFlags in_memory = run;
  in_memory.budget_bytes = 0;
  const continual::RunResult naive =
      run_with_progress(contrast, stream, nullptr, "", in_memory, "naive", common.quiet);
  if (!naive.finished) {
    out << "stopped during the naive run; what grow_freeze learnt is in " << folder << '\n';
    output.finish(json);
    return kExitOk;
  }
  out << "\nnaive, for contrast (the same layer with one pool of "
      << format_count(contrast.model.peer.rows * contrast.model.peer.cols)
      << " experts, trained on)\n";
  print_result(out, naive);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out << "\n"
      << format_duration(seconds) << " in all. Look further:\n  perennial inspect --store "
      << folder << "\n  perennial log --store " << folder << "\n  perennial eval --store " << folder
      << "\n  perennial predict --store " << folder
      << " --input IMAGES\n  perennial verify --store " << folder << '\n';

  json["naive"] = naive.to_json();
  json["seconds"] = seconds;
  json["store_bytes"] = store_bytes;
  json["snapshots"] = snapshots_json(*store);
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kDemoCommand{"demo", CommandGroup::learn_and_use,
                           "learn five permutations of Fashion-MNIST without forgetting", run_demo};

}  // namespace perennial::cli
