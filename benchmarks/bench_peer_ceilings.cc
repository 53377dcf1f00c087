// SPDX-License-Identifier: Apache-2.0
// What the machine gives at best: reading and updating rows of memory, multiplying matrices.
#include <ATen/Parallel.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "bench_peer.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kWords = RowMemory::kRowBytes / sizeof(std::uint64_t);
constexpr std::size_t kLineWords = 64 / sizeof(std::uint64_t);
// Random rows are gone through side by side, a line of each at a time, while those of the next
// group are asked for: more reads are on their way than one row after the other has. On a Xeon
// groups of 1, 4, 8, 16 and 32 rows read 4.4, 9.7, 10.8, 11.1 and 7.9 GB/s, and groups of 1, 4, 8
// and 16 update at 8.5, 17.7, 17.1 and 14.4.
constexpr std::size_t kReadGroup = 16;
constexpr std::size_t kUpdateGroup = 4;

// Calls work(line) for all lines of the rows [begin, end) of the order.
template <std::size_t kGroup, bool kWrite, class Work>
void over_lines(std::uint64_t* memory, std::span<const std::uint32_t> order, std::size_t begin,
                std::size_t end, const Work& work) {
  std::uint64_t* rows[kGroup];
  std::uint64_t* next[kGroup];
  const auto group_at = [&](std::size_t first, std::uint64_t*(&group)[kGroup]) {
    for (std::size_t g = 0; g < kGroup && first + g < end; ++g) {
      group[g] = memory + order[first + g] * kWords;
    }
  };
  for (std::size_t i = begin; i < end; i += kGroup) {
    const std::size_t count = std::min(kGroup, end - i);
    const std::size_t ahead = i + kGroup < end ? std::min(kGroup, end - i - kGroup) : 0;
    group_at(i, rows);
    group_at(i + kGroup, next);
    for (std::size_t at = 0; at < kWords; at += kLineWords) {
      for (std::size_t g = 0; g < ahead; ++g) __builtin_prefetch(next[g] + at, kWrite ? 1 : 0);
      for (std::size_t g = 0; g < count; ++g) work(rows[g] + at);
    }
  }
}

}  // namespace

RowMemory::RowMemory(std::size_t rows)
    : rows_(rows),
      memory_(static_cast<std::byte*>(std::aligned_alloc(
          kHugePage, (rows * kRowBytes + kHugePage - 1) / kHugePage * kHugePage))) {
  if (memory_ == nullptr) fail("no memory for " + std::to_string(rows) + " rows");
  (void)madvise(memory_.get(), rows * kRowBytes, MADV_HUGEPAGE);
  std::memset(memory_.get(), 1, rows * kRowBytes);
}

template <std::size_t kGroup>
double RowMemory::read_groups(std::span<const std::uint32_t> order) {
  auto* memory = reinterpret_cast<std::uint64_t*>(memory_.get());
  seen_ += at::parallel_reduce(
      0, static_cast<std::int64_t>(order.size()), kGroup, std::uint64_t{0},
      [&](auto begin, auto end, std::uint64_t sum) {
        over_lines<kGroup, false>(memory, order, static_cast<std::size_t>(begin),
                                  static_cast<std::size_t>(end), [&](const std::uint64_t* line) {
                                    for (std::size_t i = 0; i < kLineWords; ++i) sum += line[i];
                                  });
        return sum;
      },
      std::plus<>());  // kept, so that the sum is wanted
  return static_cast<double>(order.size() * kRowBytes);
}

double RowMemory::read(std::span<const std::uint32_t> order) {
  return read_groups<kReadGroup>(order);
}

double RowMemory::read_in_order(std::span<const std::uint32_t> order) {
  return read_groups<1>(order);
}

double RowMemory::update(std::span<const std::uint32_t> order) {
  auto* memory = reinterpret_cast<std::uint64_t*>(memory_.get());
  at::parallel_for(
      0, static_cast<std::int64_t>(order.size()), kUpdateGroup, [&](auto begin, auto end) {
        over_lines<kUpdateGroup, true>(memory, order, static_cast<std::size_t>(begin),
                                       static_cast<std::size_t>(end), [](std::uint64_t* line) {
                                         for (std::size_t i = 0; i < kLineWords; ++i) line[i] += 1;
                                       });
      });
  return 2 * static_cast<double>(order.size() * kRowBytes);
}

std::vector<std::uint32_t> row_order(std::size_t rows, bool shuffled) {
  std::vector<std::uint32_t> order(rows);
  std::iota(order.begin(), order.end(), 0U);
  if (shuffled) std::ranges::shuffle(order, std::mt19937(1));
  return order;
}

double PeerRun::bandwidth_scaling() {
  if (!bandwidth_scaling_) {
    RowMemory memory(smoke ? 4096 : std::size_t{1} << 19);
    const std::vector<std::uint32_t> order = row_order(memory.rows(), true);
    const auto with = [&](int count) {
      return [&, count] {
        const ThreadsScope scope(count);
        memory.read(order);
      };
    };
    const auto seconds = time_sides(*this, repetitions(5), {with(2), with(1)});
    bandwidth_scaling_ = summarize(seconds[1]).median / summarize(seconds[0]).median;
  }
  return *bandwidth_scaling_;
}

void bench_ceilings(PeerRun& run) {
  const std::size_t rows = run.smoke ? 4096 : std::size_t{1} << 20;
  RowMemory memory(rows);
  const std::vector<std::uint32_t> in_order = row_order(rows, false);
  const std::vector<std::uint32_t> shuffled = row_order(rows, true);
  const auto with = [&](int threads, const std::function<void()>& call) {
    return [=] {
      const ThreadsScope scope(threads);
      call();
    };
  };
  const auto add = [&](const std::string& what, const std::function<void()>& call, double work,
                       const char* unit) {
    const auto seconds =
        time_sides(run, run.repetitions(5), {with(run.threads, call), with(1, call)});
    const std::string name =
        "ceiling: " + what + ", " + count_of(run.threads, "thread") + "; beside 1";
    run.rows.push_back(rate_row(name, unit, work, seconds[0], seconds[1]));
  };
  const double bytes = static_cast<double>(rows * RowMemory::kRowBytes) * 1e-9;
  add(
      "read 2 KB rows in order", [&] { memory.read_in_order(in_order); }, bytes, "GB/s");
  add(
      "read random 2 KB rows", [&] { memory.read(shuffled); }, bytes, "GB/s");
  add(
      "update random 2 KB rows, bytes both ways", [&] { memory.update(shuffled); }, 2 * bytes,
      "GB/s");
  const std::int64_t side = run.smoke ? 64 : 1024;
  const at::Tensor a = at::randn({side, side}), b = at::randn({side, side});
  add(
      "at::matmul, 1024 x 1024 x 1024", [&] { at::matmul(a, b); },
      2e-9 * static_cast<double>(side * side * side), "GFLOP/s");
}

}  // namespace perennial::bench
