// SPDX-License-Identifier: Apache-2.0
// perennial log: the commits of a store.
#include <algorithm>
#include <boost/json/array.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::size_t kDigestDigits = 12;
constexpr std::size_t kNoteColumns = 40;

void print_commits(std::ostream& out, const std::vector<storage::CommitInfo>& commits) {
  Table table({{"commit"},
               {"snapshot", Align::left},
               {"time", Align::left},
               {"pages"},
               {"added"},
               {"live"},
               {"dead"},
               {"state digest", Align::left},
               {"note", Align::left}});
  for (const storage::CommitInfo& info : commits) {
    const std::uint64_t dead = info.bytes_written - std::min(info.bytes_written, info.live_bytes);
    table.add_row({std::to_string(info.commit), info.snapshot, format_time(info.unix_ms),
                   format_count(static_cast<std::int64_t>(info.pages_written)),
                   format_bytes(info.file_bytes), format_bytes(info.live_bytes), format_bytes(dead),
                   info.state_digest.hex().substr(0, kDigestDigits),
                   one_line(note_text(info.note), kNoteColumns)});
  }
  table.print(out);
}

int run_log(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t last = 0;
  CommonOptions common;
  Flags flags("log", kLogCommand.summary, "perennial log --store runs/first --last 10");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add("last", last, "only the newest N commits, 0 = all", Range{0, 1e9});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder);
  std::vector<storage::CommitInfo> commits = store->log();
  const std::uint64_t size = value_or_throw(store->size_bytes());
  const std::size_t all = commits.size();
  if (last > 0 && std::cmp_less(last, commits.size())) {
    commits.erase(commits.begin(), commits.end() - last);
  }

  const Output output(common.json, common.quiet);
  if (commits.empty()) {
    output.text() << folder << " holds no commit yet\n";
  } else {
    print_commits(output.text(), commits);
    output.text() << format_count(static_cast<std::int64_t>(all)) << " commits, "
                  << format_bytes(size) << " on disk; live and dead count the bytes that the "
                  << "current state uses and does not use\n";
  }
  boost::json::array rows;
  for (const storage::CommitInfo& info : commits) rows.push_back(commit_json(info));
  output.finish({{"store", folder}, {"store_bytes", size}, {"commits", std::move(rows)}});
  return kExitOk;
}

}  // namespace

const Command kLogCommand{"log", CommandGroup::history,
                          "list the commits of a store, and what each adds and keeps", run_log};

}  // namespace perennial::cli
