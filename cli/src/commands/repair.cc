// SPDX-License-Identifier: Apache-2.0
// perennial repair: put intact versions in the place of damaged pages.
#include "perennial/storage/repair.h"

#include <boost/json/array.hpp>
#include <iostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

const char* by_name(storage::Repair::By by) {
  switch (by) {
    case storage::Repair::By::copy:
      return "copy";
    case storage::Repair::By::older:
      return "older";
    case storage::Repair::By::nothing:
      break;
  }
  return "nothing";
}

int run_repair(const std::vector<std::string>& args) {
  std::string folder, copy_folder;
  storage::RepairOptions options;
  CommonOptions common;
  Flags flags("repair", kRepairCommand.summary,
              "perennial repair --store runs/first --copy /backup/first");
  flags.require("store", folder, "DIR", "the store's folder")
      .add_text("copy", copy_folder, "DIR",
                "a copy of the store (perennial copy) to take bytes from")
      .add("older", options.allow_older,
           "where the copy has not the very bytes, let an earlier version of a page take its place")
      .add_switch("dry-run", options.dry_run, "look and report, and change nothing");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  std::unique_ptr<storage::PageReader> copy;
  if (!copy_folder.empty()) copy = open_view(copy_folder);
  options.copy = copy.get();
  const auto store = open_store(folder);
  options.note = action_note(*store, "repair");
  const storage::RepairReport report = value_or_throw(storage::repair_store(*store, options));

  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  boost::json::array repairs;
  for (const storage::Repair& repair : report.repairs) {
    out << repair.found << '\n';
    switch (repair.by) {
      case storage::Repair::By::copy:
        out << "  its very bytes are in the copy\n";
        break;
      case storage::Repair::By::older:
        out << "  an earlier version is intact, of commit " << repair.commit << '\n';
        break;
      case storage::Repair::By::nothing:
        out << "  nothing can take its place\n";
        break;
    }
    repairs.push_back({{"what", repair.what},
                       {"found", repair.found},
                       {"by", by_name(repair.by)},
                       {"commit", repair.commit}});
  }
  const std::uint64_t unrepaired = report.unrepaired();
  out << format_count(static_cast<std::int64_t>(report.pages_read)) << " pages and "
      << report.dense_read << " dense entries read";
  if (report.repairs.empty()) {
    out << ": all intact\n";
  } else {
    out << ", " << report.repairs.size() << " damaged, " << report.repairs.size() - unrepaired
        << (options.dry_run ? " can be repaired\n" : " repaired\n");
  }
  if (report.commit.commit != 0) {
    out << "the repaired state is commit " << report.commit.commit
        << "; earlier commits are as they "
        << "were\n";
  }
  output.finish({{"store", folder},
                 {"pages", report.pages_read},
                 {"damaged", report.repairs.size()},
                 {"unrepaired", unrepaired},
                 {"commit", report.commit.commit},
                 {"repairs", std::move(repairs)}});
  if (unrepaired == 0) return kExitOk;
  std::cerr << "perennial: " << folder << " stays damaged: " << unrepaired
            << " without an intact version" << std::endl;
  return kExitData;
}

}  // namespace

const Command kRepairCommand{"repair", CommandGroup::safety,
                             "replace damaged pages by those of a copy, or by earlier versions",
                             run_repair};

}  // namespace perennial::cli
