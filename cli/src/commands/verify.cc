// SPDX-License-Identifier: Apache-2.0
// perennial verify: read every byte of a store.
#include <boost/json/array.hpp>
#include <chrono>
#include <iostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_verify(const std::vector<std::string>& args) {
  std::string folder;
  CommonOptions common;
  Flags flags("verify", kVerifyCommand.summary, "perennial verify --store runs/first");
  flags.require("store", folder, "DIR", "the store's folder");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto start = std::chrono::steady_clock::now();
  const auto store = open_store(folder);
  const storage::VerifyReport report = value_or_throw(store->verify());
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const Output output(common.json, common.quiet);
  boost::json::array damage;
  for (const storage::Damage& found : report.damage) {
    const std::string place = found.file.empty() ? "" : found.file + ": ";
    output.text() << place << found.what << '\n';
    damage.push_back({{"file", found.file}, {"what", found.what}});
  }
  output.text() << format_count(static_cast<std::int64_t>(report.records)) << " commits, "
                << format_count(static_cast<std::int64_t>(report.pages)) << " pages, "
                << format_count(static_cast<std::int64_t>(report.chunks)) << " chunks, "
                << format_bytes(report.bytes) << " read in " << format_duration(seconds)
                << (damage.empty() ? ": all intact\n" : "\n");
  output.finish({{"store", folder},
                 {"intact", damage.empty()},
                 {"records", report.records},
                 {"pages", report.pages},
                 {"chunks", report.chunks},
                 {"bytes", report.bytes},
                 {"seconds", seconds},
                 {"damage", std::move(damage)}});
  if (report.damage.empty()) return kExitOk;
  std::cerr << "perennial: " << folder << " is damaged: " << report.damage.size()
            << (report.damage.size() == 1 ? " finding" : " findings") << std::endl;
  return kExitData;
}

}  // namespace

const Command kVerifyCommand{"verify", CommandGroup::safety,
                             "read every byte of a store and name what is broken", run_verify};

}  // namespace perennial::cli
