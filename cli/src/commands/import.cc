// SPDX-License-Identifier: Apache-2.0
// perennial import: append a generation from a safetensors file.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"
#include "perennial/core/shard_file.h"

namespace perennial::cli {
namespace {

int run_import(const std::vector<std::string>& args) {
  std::string folder, file, snapshot;
  CommonOptions common;
  Flags flags("import", kImportCommand.summary,
              "perennial import --store perennial-demo --file tops.safetensors");
  flags.require("store", folder, "DIR", "the store's folder")
      .require("file", file, "FILE", "what 'perennial export' wrote")
      .add_text("snapshot", snapshot, "NAME", "name of a snapshot to keep the result as");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  LearntPool learnt(folder);
  const std::uint32_t number = learnt.model().import_generation(file);
  const Generation imported = learnt.experts().pools().front()->generation(number);
  const bool gated = learnt.model().gate() != nullptr;
  const std::string digest = shard_content_digest(learnt.experts(), number).hex();
  const storage::CommitInfo info = learnt.commit("import", snapshot);

  const Output output(common.json, common.quiet);
  output.text() << "generation " << imported.index << " has rows " << imported.first_row << " to "
                << imported.first_row + imported.rows - 1 << ", " << imported.cols
                << " columns, as they were exported\ncontent digest " << digest << "\ncommit "
                << info.commit << " wrote " << info.pages_written << " pages, "
                << format_bytes(info.bytes_written) << '\n';
  if (gated) {
    output.text() << "the gate has seen no data of it and gives it no inputs; with the oracle it "
                     "answers\n";
  }
  boost::json::object json = commit_json(info);
  json["generation"] = generation_json(imported);
  json["content_digest"] = digest;
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kImportCommand{"import", CommandGroup::safety,
                             "append a generation from a safetensors file, bit for bit",
                             run_import};

}  // namespace perennial::cli
