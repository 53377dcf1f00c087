// SPDX-License-Identifier: Apache-2.0
// perennial grow: append experts to the pool of a store by hand.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"

namespace perennial::cli {
namespace {

int run_grow(const std::vector<std::string>& args) {
  std::string folder, snapshot;
  std::int64_t rows = 0, cols = 0, columns = 0;
  bool freeze = false;
  CommonOptions common;
  Flags flags("grow", kGrowCommand.summary.data(),
              "perennial grow --store perennial-demo --rows 64 --freeze");
  flags.require("store", folder, "DIR", "the store's folder")
      .add("rows", rows, "rows of the new generation; 0 = as the model's options say",
           Range{0, 4294967295.})
      .add("cols", cols, "columns of the new generation; 0 = as the model's options say",
           Range{0, 4294967295.})
      .add("columns", columns, "instead: columns to append to the open generation",
           Range{0, 4294967295.})
      .add_switch("freeze", freeze, "freeze the open generation first")
      .add_text("snapshot", snapshot, "NAME", "name of a snapshot to keep the result as");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  if (columns > 0 && (rows > 0 || cols > 0 || freeze)) {
    throw InvalidOptions(
        "--columns widens the open generation; --rows, --cols and --freeze make a "
        "new one");
  }

  LearntPool learnt(folder);
  if (columns > 0) {
    learnt.experts().grow_columns(columns);
  } else {
    if (freeze && learnt.experts().open_generation()) learnt.model().freeze();
    learnt.model().grow(rows, cols);
  }
  const storage::CommitInfo info = learnt.commit("grow", snapshot);
  const Pool& pool = *learnt.experts().pools().front();
  const Generation& newest = pool.generations().back();

  const Output output(common.json, common.quiet);
  output.text() << "generation " << newest.index << " has rows " << newest.first_row << " to "
                << newest.first_row + newest.rows - 1 << ", " << newest.cols
                << " columns; the pool holds "
                << format_count(static_cast<std::int64_t>(pool.experts())) << " experts\ncommit "
                << info.commit << " wrote " << info.pages_written << " pages, "
                << format_bytes(info.bytes_written) << '\n';
  boost::json::object json = commit_json(info);
  json["generation"] = generation_json(newest);
  json["experts"] = pool.experts();
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kGrowCommand{"grow", CommandGroup::pool, "append experts to a store's pool",
                           run_grow};

}  // namespace perennial::cli
