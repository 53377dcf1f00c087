// SPDX-License-Identifier: Apache-2.0
// perennial gc: drop what the retention rule lets go, and give its space back.
#include <boost/json/array.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "retention_flags.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_gc(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t rate = 0;
  storage::ReclaimOptions options;
  options.target_space = 1.2;
  RetentionFlags retention;
  CommonOptions common;
  Flags flags("gc", kGcCommand.summary, "perennial gc --store runs/first --keep-last 5 --daily 7");
  flags.require("store", folder, "DIR", "the store's folder");
  retention.add_to(flags);
  flags
      .add("target_space", options.target_space,
           "rewrite files until all take at most so many times the live bytes", Range{1, 1000})
      .add("max_dead", options.max_dead, "rewrite every file that is dead beyond this share",
           Range{0, 1})
      .add_bytes("rate", rate, "bytes a second to rewrite at most; 0 = as fast as the disk",
                 Range{0, 1e15});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  options.bytes_per_second = static_cast<std::uint64_t>(rate);

  const auto store = open_store(folder);
  const std::uint64_t before = value_or_throw(store->size_bytes());
  const std::size_t commits_before = store->log().size();
  std::uint64_t dropped = 0;
  if (const auto rule = retention.given(flags, store->retention());
      rule && !(*rule == store->retention()) && store->head().ok()) {
    storage::CommitRequest request;
    request.retention = rule;
    request.note = action_note(*store, "gc");
    (void)value_or_throw(store->commit(request));
    dropped = commits_before + 1 - store->log().size();
  }
  const storage::ReclaimReport report = value_or_throw(store->reclaim(options));
  const std::uint64_t after = value_or_throw(store->size_bytes());

  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  const storage::Retention rule = store->retention();
  out << "rule: ";
  if (rule.keep_last == 0) {
    out << "every commit is kept\n";
  } else {
    out << "snapshots, the last " << format_number_of(rule.keep_last, "commit");
    if (rule.hourly > 0) out << ", " << rule.hourly << " hourly";
    if (rule.daily > 0) out << ", " << rule.daily << " daily";
    out << '\n';
  }
  out << "dropped " << format_number_of(dropped, "commit") << ", removed "
      << format_number_of(report.files_removed, "file") << ", rewrote " << report.files_rewritten
      << " (" << format_bytes(report.bytes_rewritten) << ")\n"
      << folder << " took " << format_bytes(before) << ", takes " << format_bytes(after) << '\n';
  if (report.files_left > 0) {
    out << format_number_of(report.files_left, "file")
        << " could not be rewritten for want of room; with more free space run gc again\n";
  }
  for (const std::string& reader : report.readers) {
    out << "space may still be held by " << reader << '\n';
  }
  output.finish({{"store", folder},
                 {"keep_last", rule.keep_last},
                 {"hourly", rule.hourly},
                 {"daily", rule.daily},
                 {"dropped", dropped},
                 {"files_removed", report.files_removed},
                 {"files_rewritten", report.files_rewritten},
                 {"bytes_rewritten", report.bytes_rewritten},
                 {"files_left", report.files_left},
                 {"bytes_before", before},
                 {"bytes_after", after},
                 {"readers", boost::json::array(report.readers.begin(), report.readers.end())}});
  return kExitOk;
}

}  // namespace

const Command kGcCommand{"gc", CommandGroup::history,
                         "apply a retention rule and give the space of dropped commits back",
                         run_gc};

}  // namespace perennial::cli
