// SPDX-License-Identifier: Apache-2.0
// Verifying a store with progress.
#include "verify_report.h"

#include <boost/json/array.hpp>
#include <chrono>
#include <iostream>

#include "command.h"
#include "perennial/core/error.h"
#include "progress.h"

namespace perennial::cli {

boost::json::object verify_and_print(storage::PageReader& store, const std::string& folder,
                                     std::int64_t rate, const CommonOptions& common,
                                     const Output& output) {
  const auto start = std::chrono::steady_clock::now();
  ProgressDisplay display(common.quiet);
  const storage::VerifyReport report = value_or_throw(
      store.verify({.bytes_per_second = static_cast<std::uint64_t>(rate),
                    .on_progress = [&](std::uint64_t done, std::uint64_t total) {
                      display.update({"verifying", static_cast<std::int64_t>(done >> 20),
                                      static_cast<std::int64_t>(total >> 20), "MiB", ""});
                      return true;
                    }}));
  display.clear();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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
  return {{"store", folder},       {"intact", damage.empty()},   {"records", report.records},
          {"pages", report.pages}, {"chunks", report.chunks},    {"bytes", report.bytes},
          {"seconds", seconds},    {"damage", std::move(damage)}};
}

int damaged(const std::string& folder, const boost::json::object& result) {
  const std::size_t findings = result.at("damage").as_array().size();
  std::cerr << "perennial: " << folder << " is damaged: " << findings
            << (findings == 1 ? " finding" : " findings") << std::endl;
  return kExitData;
}

}  // namespace perennial::cli
