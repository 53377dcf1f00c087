// SPDX-License-Identifier: Apache-2.0
// Question: what does the durable page store make of the device below it: reads beside pread of
// the same pages, commits beside write and fsync of the same bytes, bytes written beside bytes
// changed, opening, and the naive layout (one RocksDB key an expert, synced log)? And what do
// commits, of pages and of dense state, and page faults cost the thread that trains?
// Cannot show: reads and commits at the same time, stores larger than the page cache over days,
// what a device does after its own cache and its burst credit are used up (rows are medians of
// neighbouring runs, so both sides meet the same device), power cuts. Every sync of a commit waits
// for a processor, too: on a machine that is busy with other work the small commits, their p99 and
// the naive layout's rows say little.
//
//   bench_store [--json FILE] [--smoke] [--dir FOLDER] [--only PART]
//
// Files go to a new folder inside FOLDER (default: the current one), at most 3 GB at a time. PART:
// reads, commits, amplification, reclaim, deltas, stall, dense, cache, open or naive.
#include "bench_store.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "machine.h"

namespace perennial::bench {

namespace {

struct Part {
  const char* name;
  void (*run)(StoreRun&);
};
constexpr Part kParts[] = {
    {"reads", bench_reads},     {"commits", bench_commits}, {"amplification", bench_amplification},
    {"reclaim", bench_reclaim}, {"deltas", bench_deltas},   {"stall", bench_stall},
    {"dense", bench_dense},     {"cache", bench_cache},     {"open", bench_open},
    {"naive", bench_naive}};

int run_parts(const Arguments& arguments) {
  const auto value_of = [&](const char* flag, const char* otherwise) {
    const auto found = arguments.own.find(flag);
    return found == arguments.own.end() ? std::string(otherwise) : found->second;
  };
  const std::string only = value_of("--only", "");
  if (!only.empty() && std::ranges::find(kParts, only, &Part::name) == std::end(kParts)) {
    std::fprintf(stderr, "bench_store: there is no part '%s'\n", only.c_str());
    return 2;
  }
  const TemporaryFolder folder(value_of("--dir", "."));
  const boost::json::object machine = describe_machine(folder.path());
  StoreRun run{.smoke = arguments.smoke, .folder = folder.path(), .rows = {}};
  for (const Part& part : kParts) {
    if (!only.empty() && only != part.name) continue;
    const double start = now();
    part.run(run);
    std::fprintf(stderr, "%s: %.1f s\n", part.name, now() - start);
  }
  return report_rows(arguments, machine, run.rows);
}

}  // namespace
}  // namespace perennial::bench

int main(int argc, char** argv) {
  const auto arguments = perennial::bench::parse_arguments(
      argc, argv, {{.name = "--dir", .value = "FOLDER"}, {.name = "--only", .value = "PART"}});
  try {
    return perennial::bench::run_parts(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_store: %s\n", error.what());
    return 1;
  }
}
