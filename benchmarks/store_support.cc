// SPDX-License-Identifier: Apache-2.0
// Rows, stores and pages that the benchmarks of the store share.
#include <algorithm>
#include <cstring>

#include "bench_store.h"

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

}  // namespace perennial::bench
