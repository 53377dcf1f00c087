// SPDX-License-Identifier: Apache-2.0
// perennial verify: read every byte of a store.
#include <boost/json/array.hpp>
#include <chrono>
#include <iostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "progress.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_verify(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t rate = 0;
  CommonOptions common;
  Flags flags("verify", kVerifyCommand.summary, "perennial verify --store runs/first");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_bytes("rate", rate, "bytes a second to read at most; 0 = as fast as the disk",
                 Range{0, 1e15});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto start = std::chrono::steady_clock::now();
  const auto store = open_view(folder);
  ProgressDisplay display(common.quiet);
  const storage::VerifyReport report = value_or_throw(
      store->verify({.bytes_per_second = static_cast<std::uint64_t>(rate),
                     .on_progress = [&](std::uint64_t done, std::uint64_t total) {
                       display.update({"verifying", static_cast<std::int64_t>(done >> 20),
                                       static_cast<std::int64_t>(total >> 20), "MiB", ""});
                       return true;
                     }}));
  display.clear();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const Output output(common.json, common.quiet);
  boost::json::array damage;
  for (const storage::Damage& found : report.damage) {
    const std::string place = found.file.empty() ? "" : found.file + ": ";
    output.text() << place << found.what << '\n';
    damage.push_back({{"file", found.file}, {"what", found.what}, {"commit", found.commit}});
  }
  output.text() << format_count(static_cast<std::int64_t>(report.records)) << " records, "
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
