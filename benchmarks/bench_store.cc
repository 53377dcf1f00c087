// SPDX-License-Identifier: Apache-2.0
// Question: what does the durable page store make of the device below it: reads beside pread of
// the same pages, commits beside write and fsync of the same bytes, bytes written beside bytes
// changed, opening, and the naive layout (one RocksDB key an expert, synced log)? And what do
// commits and page faults cost the thread that trains?
// Cannot show: reads and commits at the same time, stores larger than the page cache over days,
// what a device does after its own cache and its burst credit are used up (rows are medians of
// neighbouring runs, so both sides meet the same device), power cuts. Every sync of a commit waits
// for a processor, too: on a machine that is busy with other work the small commits, their p99 and
// the naive layout's rows say little.
//
//   bench_store [--json FILE] [--smoke] [--dir FOLDER] [--only PART]
//
// Files go to a new folder inside FOLDER (default: the current one), at most 3 GB at a time. PART:
// reads, commits, amplification, reclaim, deltas, stall, cache, open or naive.
#include "bench_store.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "machine.h"

namespace perennial::bench {

std::vector<std::vector<double>> interleave(std::size_t repetitions, const Sides& sides) {
  std::vector<std::vector<double>> results(sides.size());
  for (std::size_t repetition = 0; repetition < repetitions; ++repetition) {
    for (std::size_t i = 0; i < sides.size(); ++i) {
      const std::size_t side = (i + repetition) % sides.size();
      results[side].push_back(sides[side]());
    }
  }
  return results;
}

namespace {

double median_ratio(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < above.size(); ++i) ratios.push_back(above[i] / below[i]);
  return summarize(ratios).median;
}

Sample scaled(const std::vector<double>& seconds, double (*scale)(double, double), double factor) {
  std::vector<double> values;
  for (const double time : seconds) values.push_back(scale(time, factor));
  return summarize(values);
}

Row row_of(std::string name, std::string unit, const std::vector<double>& ours,
           const std::vector<double>& baseline, std::optional<double> target,
           double (*scale)(double, double), double factor) {
  return {.name = std::move(name),
          .unit = std::move(unit),
          .ours = scaled(ours, scale, factor),
          .baseline = scaled(baseline, scale, factor),
          .ratio = median_ratio(baseline, ours),
          .target = target};
}

}  // namespace

Row rate_row(std::string name, std::string unit, double work, const std::vector<double>& ours,
             const std::vector<double>& baseline, std::optional<double> target) {
  return row_of(
      std::move(name), std::move(unit), ours, baseline, target,
      [](double seconds, double amount) { return amount / seconds; }, work);
}

Row time_row(std::string name, const std::vector<double>& ours, const std::vector<double>& baseline,
             std::optional<double> target) {
  return row_of(
      std::move(name), "ms", ours, baseline, target,
      [](double seconds, double factor) { return factor * seconds; }, 1e3);
}

Row limit_row(std::string name, std::string unit, const std::vector<double>& values,
              const std::vector<double>& baseline, double multiple) {
  Row row = less_row(std::move(name), std::move(unit), values, baseline);
  row.ratio *= multiple;
  row.target = 1.0;
  return row;
}

Row limit_row(std::string name, std::string unit, const std::vector<double>& values, double limit) {
  return limit_row(std::move(name), std::move(unit), values, {limit}, 1.0);
}

Row less_row(std::string name, std::string unit, const std::vector<double>& values,
             const std::vector<double>& baseline) {
  const Sample ours = summarize(values);
  const Sample theirs = summarize(baseline);
  return {.name = std::move(name),
          .unit = std::move(unit),
          .ours = ours,
          .baseline = theirs,
          .ratio = theirs.median / ours.median};
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = std::min(values.size() - 1,
                           static_cast<std::size_t>(share * static_cast<double>(values.size())));
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(at));
  return values[at];
}

void must(const storage::Status& status) {
  if (!status.ok()) fail(status.to_string());
}

std::unique_ptr<storage::PageStore> open_store(const std::filesystem::path& folder,
                                               const storage::RocksdbStoreOptions& options) {
  return must(storage::open_rocksdb_store(folder, options));
}

storage::PageId page_id(std::size_t index) {
  return {.kind = storage::PageKind::weights,
          .pool = 0,
          .row = static_cast<std::uint32_t>(index / 64),
          .tile = static_cast<std::uint32_t>(index % 64)};
}

storage::PageShape page_shape(std::size_t page_bytes) {
  return {.dtype = storage::DType::f32,
          .experts = static_cast<std::uint32_t>(page_bytes / kExpertBytes),
          .record_floats = kExpertFloats};
}

PageSource::PageSource(std::size_t page_bytes, std::size_t distinct)
    : page_bytes_(page_bytes), distinct_(distinct), bytes_(aligned_bytes(page_bytes * distinct)) {
  const std::vector<std::byte> bytes = random_bytes(page_bytes * distinct, 1);
  std::memcpy(bytes_.get(), bytes.data(), bytes.size());
}

std::span<const std::byte> PageSource::page(std::size_t index) const {
  return {bytes_.get() + index % distinct_ * page_bytes_, page_bytes_};
}

storage::PageWrite PageSource::write(std::size_t index, std::size_t content) const {
  return {.id = page_id(index), .shape = page_shape(page_bytes_), .payload = [this, content] {
            return storage::Result(page(content));
          }};
}

storage::CommitRequest PageSource::first(std::size_t count) const {
  storage::CommitRequest request;
  request.retention = storage::Retention::all();
  for (std::size_t i = 0; i < count; ++i) request.pages.push_back(write(i));
  return request;
}

namespace {

struct Part {
  const char* name;
  void (*run)(StoreRun&);
};
constexpr Part kParts[] = {
    {"reads", bench_reads},     {"commits", bench_commits}, {"amplification", bench_amplification},
    {"reclaim", bench_reclaim}, {"deltas", bench_deltas},   {"stall", bench_stall},
    {"cache", bench_cache},     {"open", bench_open},       {"naive", bench_naive}};

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
