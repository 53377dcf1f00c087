// SPDX-License-Identifier: Apache-2.0
// Opening a store that lists a million experts. Only the page table has its full size: what pages
// hold does not matter to opening, which reads records only.
#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;

// 16 experts a page as in pages of 32 KB, but a record of 1 float instead of 512.
constexpr storage::PageShape kSmallShape{
    .dtype = storage::DType::f32, .experts = 16, .record_floats = 1};

}  // namespace

void bench_open(StoreRun& run) {
  const std::size_t pages = run.size(65536, 256);
  const std::vector<std::byte> bytes = random_bytes(pages * 8 + 64, 1);
  const fs::path folder = run.folder / "open";
  {
    auto store = open_store(folder);
    const std::size_t commits = 4;
    for (std::size_t commit = 0; commit < commits; ++commit) {
      storage::CommitRequest request;
      for (std::size_t i = commit * pages / commits; i < (commit + 1) * pages / commits; ++i) {
        request.pages.push_back(
            {.id = page_id(i), .shape = kSmallShape, .payload = [&bytes, i] {
               return storage::Result(std::span(bytes).subspan(i * 8, kSmallShape.payload_bytes()));
             }});
      }
      must(store->commit(request));
    }
  }
  for (const Caching caching : {Caching::cold, Caching::warm}) {
    const auto seconds = interleave(run.repetitions(7), {[&] {
                                      prepare_cache(folder, caching);
                                      const double start = now();
                                      const auto store = open_store(folder);
                                      return now() - start;
                                    }});
    Row row = time_row("open, 1M experts on 65,536 pages (full table, tiny payloads), " +
                           std::string(to_string(caching)),
                       seconds[0], {1.0}, 1.0);
    row.ratio = 1e3 / row.ours.median;
    run.rows.push_back(std::move(row));
  }
  fs::remove_all(folder);
}

}  // namespace perennial::bench
