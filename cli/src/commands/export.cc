// SPDX-License-Identifier: Apache-2.0
// perennial export: a frozen generation as a safetensors file.
#include <filesystem>
#include <ostream>
#include <string>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"
#include "perennial/core/shard_file.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_export(const std::vector<std::string>& args) {
  std::string folder, into, snapshot;
  std::uint32_t generation = 0;
  CommonOptions common;
  Flags flags("export", kExportCommand.summary,
              "perennial export --store perennial-demo --generation 2 --into tops.safetensors");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .require("into", into, "FILE", "the file to write; it must not exist")
      .add("generation", generation, "the frozen generation to export", Range{0, 4294967295.})
      .add_text("at", snapshot, "NAME|N", "the state to export from; the newest without it");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder, snapshot);
  const continual::LearntModel learnt = continual::load_learnt(*store, 0);
  ExpertLayers& experts = experts_of(learnt);
  const std::size_t generations = experts.generations();
  if (generation >= generations) {
    throw InvalidOptions("--generation is " + std::to_string(generation) + "; the store has 0 to " +
                         std::to_string(generations - 1));
  }
  const GenerationState state = experts.state(generation);
  if (state == GenerationState::open) {
    throw InvalidOptions("generation " + std::to_string(generation) +
                         " is open; only frozen ones can be exported (perennial freeze)");
  }
  if (state == GenerationState::unlearned) {
    throw InvalidOptions("generation " + std::to_string(generation) +
                         " was unlearned: there is nothing of it to export");
  }
  learnt.model->export_generation(generation, into);
  const Generation& exported = experts.pools().front()->generation(generation);
  std::uint64_t bytes = 0;
  if (std::filesystem::is_directory(into)) {
    for (const auto& file : std::filesystem::directory_iterator(into)) bytes += file.file_size();
  } else {
    bytes = std::filesystem::file_size(into);
  }
  const std::string digest = shard_content_digest(experts, generation).hex();

  const Output output(common.json, common.quiet);
  output.text() << "generation " << generation << ", "
                << format_count(std::int64_t{exported.rows} * exported.cols) << " experts, is in "
                << into << " (" << format_bytes(bytes) << ")\ncontent digest " << digest << '\n';
  boost::json::object json = generation_json(exported);
  json["file"] = into;
  json["bytes"] = bytes;
  json["content_digest"] = digest;
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kExportCommand{"export", CommandGroup::safety,
                             "write a frozen generation to a safetensors file", run_export};

}  // namespace perennial::cli
