// SPDX-License-Identifier: Apache-2.0
// The expert part alone: beside reading as many random rows, and over a pool that grows.
#include "bench_peer.h"
#include "peer_kernels.h"
#include "peer_sides.h"

namespace perennial::bench {

void bench_experts(PeerRun& run) {
  OurSide& ours = run.ours();
  const Batches batches(run, ours.sizes(), run.tokens(1024));
  Stages stages(ours.layer(), ours.sizes(), batches);
  const auto rate = [](std::vector<double> seconds, double bytes) {
    for (double& value : seconds) value = 1e-9 * bytes / value;
    return seconds;
  };

  {
    RowMemory memory(static_cast<std::size_t>(ours.sizes().experts()));
    const std::vector<std::uint32_t> order = row_order(memory.rows(), true);
    const auto count = static_cast<std::size_t>(stages.bytes() / RowMemory::kRowBytes);
    const std::size_t take = std::min(count, order.size());
    const auto read = [&, at = std::size_t{0}]() mutable {
      if (at + take > order.size()) at = 0;
      memory.read(std::span(order).subspan(at, take));
      at += take;
    };
    const double read_bytes = static_cast<double>(take * RowMemory::kRowBytes);
    const auto measure = [&](int threads) {
      const ThreadsScope scope(threads);
      const auto seconds =
          time_sides(run, run.repetitions(7), {[&] { stages.experts_forward(); }, read});
      const auto expert_rate = rate(seconds[0], stages.bytes());
      const auto read_rate = rate(seconds[1], read_bytes);
      run.rows.push_back(share_row("expert part, 1,024 tokens, " + count_of(threads, "thread") +
                                       "; beside reading random 2 KB rows",
                                   "GB/s", expert_rate, read_rate, 0.8));
    };
    measure(1);
    if (run.threads > 1) measure(run.threads);
  }

  // 16,384 experts of 2 KB stay in the last cache; a million do not.
  OurSide small(run.sizes(128, 256));
  const Batches small_batches(run, small.sizes(), run.tokens(1024));
  Stages small_stages(small.layer(), small.sizes(), small_batches);
  const auto seconds =
      time_sides(run, run.repetitions(7),
                 {[&] { stages.experts_forward(); }, [&] { small_stages.experts_forward(); },
                  [&, x = batches.turn()] { ours.forward(x()); },
                  [&, x = small_batches.turn()] { small.forward(x()); }});
  const auto ms = [&](std::size_t side) {
    std::vector<double> values = seconds[side];
    for (double& value : values) value *= 1e3;
    return values;
  };
  run.rows.push_back(
      limit_row("expert part of a million experts <= 2.5 that of 16,384, 1,024 tokens", "ms", ms(0),
                ms(1), 2.5));
  run.rows.push_back(
      less_row("forward over a million experts; beside 16,384, 1,024 tokens", "ms", ms(2), ms(3)));
}

}  // namespace perennial::bench
