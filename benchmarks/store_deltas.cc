// SPDX-License-Identifier: Apache-2.0
// Bytes that commits write for each expert that was trained, when few experts of a page are: with
// and without PageWrite::changed. Every page of the pool is committed each time.
#include <algorithm>
#include <cstring>
#include <random>

#include "bench_store.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kCommits = 20;

// How the experts of a page that train are chosen.
enum class Choice {
  any,   // others at each commit
  same,  // the same at each commit
};

struct Trained {
  std::size_t tile;  // experts a page
  std::size_t experts;
  Choice choice;
};

// Bytes sent to the device for each byte of an expert that was trained, after a first commit of
// all pages.
double bytes_a_byte(const StoreRun& run, const Trained& trained, bool with_changed) {
  const std::size_t pages = run.size(512, 8);
  const std::size_t page_bytes = trained.tile * kExpertBytes;
  std::vector<std::byte> content = random_bytes(pages * page_bytes, 1);
  const auto page = [&](std::size_t i) {
    return std::span(content).subspan(i * page_bytes, page_bytes);
  };
  const std::filesystem::path folder = run.folder / "deltas";
  const auto store = open_store(folder);
  std::mt19937 random(1);
  std::vector<std::size_t> order(trained.tile);
  for (std::size_t i = 0; i < trained.tile; ++i) order[i] = i;
  double written = 0;
  const std::size_t commits = run.size(kCommits, 1);
  for (std::size_t commit = 0; commit <= commits; ++commit) {
    storage::CommitRequest request;
    request.retention = storage::Retention::all();
    for (std::size_t i = 0; i < pages; ++i) {
      if (trained.choice == Choice::any) std::ranges::shuffle(order, random);
      std::uint64_t changed = 0;
      for (std::size_t k = 0; k < trained.experts && commit > 0; ++k) {
        const auto record = page(i).subspan(order[k] * kExpertBytes, kExpertBytes);
        std::memcpy(record.data(), &commit, sizeof commit);
        changed |= std::uint64_t{1} << order[k];
      }
      request.pages.push_back({.id = page_id(i),
                               .shape = page_shape(page_bytes),
                               .payload = [bytes = std::span<const std::byte>(
                                               page(i))] { return storage::Result(bytes); },
                               .changed = with_changed ? changed : 0});
    }
    const std::uint64_t before = bytes_written();
    must(store->commit(request));
    if (commit > 0) written += static_cast<double>(bytes_written() - before);
  }
  std::filesystem::remove_all(folder);
  return written / static_cast<double>(commits * pages * trained.experts * kExpertBytes);
}

}  // namespace

void bench_deltas(StoreRun& run) {
  for (const std::size_t tile : {16u, 32u}) {
    for (const Choice choice : {Choice::any, Choice::same}) {
      for (const std::size_t experts : {std::size_t{1}, std::size_t{2}, std::size_t{4}, tile}) {
        if (experts == tile && choice == Choice::same) continue;  // there is no choice
        const Trained trained{.tile = tile, .experts = experts, .choice = choice};
        const std::string which = experts == tile         ? "all"
                                  : choice == Choice::any ? std::to_string(experts) + " (any)"
                                                          : std::to_string(experts) + " (the same)";
        run.rows.push_back(less_row("20 commits, " + which + " of " + std::to_string(tile) +
                                        " experts a page trained; beside whole pages",
                                    "bytes a trained byte", {bytes_a_byte(run, trained, true)},
                                    {bytes_a_byte(run, trained, false)}));
      }
    }
  }
}

}  // namespace perennial::bench
