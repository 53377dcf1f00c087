// SPDX-License-Identifier: Apache-2.0
// Where the time of our layer goes, by one thread and by all, N = 1M, d = 256: no rows to judge.
#include <ATen/ops/ones_like.h>

#include "bench_peer.h"
#include "peer_kernels.h"
#include "peer_sides.h"

namespace perennial::bench {

void bench_parts(PeerRun& run) {
  OurSide& ours = run.ours();
  if (!run.fits("parts, N = 1M, d = 256", 3 * ours.sizes().table_bytes())) return;
  if (!ours.trains()) ours.attach_optimizer();
  for (const std::int64_t wanted : {std::int64_t{1024}, std::int64_t{1}}) {
    const std::int64_t tokens = run.tokens(wanted);
    const Batches batches(run, ours.sizes(), tokens);
    Stages stages(ours.layer(), ours.sizes(), batches);
    const at::Tensor dy = at::ones_like(batches.all().front());
    const auto x = batches.turn();
    const std::vector<std::pair<const char*, std::function<void()>>> calls = {
        {"query projection", [&] { stages.project(); }},
        {"scores and top-k", [&] { stages.retrieve(); }},
        {"experts", [&] { stages.experts_forward(); }},
        {"forward", [&] { ours.forward(x()); }},
        {"experts, backward of the tokens", [&] { stages.experts_backward(); }},
        {"forward + backward", [&] { ours.backward(x(), dy); }},
        {"forward + backward + Adam", [&] { ours.step(x(), dy); }},
        {"forward + backward + Adam, compact gradient", [&] { ours.step_compact(x(), dy); }},
    };
    for (const auto& [name, call] : calls) {
      const auto with = [&run, &call = call](int threads) {
        return [&call, threads] {
          const ThreadsScope scope(threads);
          call();
        };
      };
      auto seconds = time_sides(run, run.repetitions(5), {with(run.threads), with(1)});
      for (auto& side : seconds) {
        for (double& value : side) value *= 1e6 / static_cast<double>(tokens);
      }
      const std::string row = std::string("part: ") + name + ", " + count_of(wanted, "token") +
                              ", " + count_of(run.threads, "thread") + "; beside 1";
      run.rows.push_back(less_row(row, "us/token", seconds[0], seconds[1]));
    }
    ours.clear_gradients();
  }
}

}  // namespace perennial::bench
