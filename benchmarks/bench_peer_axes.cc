// SPDX-License-Identifier: Apache-2.0
// Ours beside eager LibTorch over experts, tokens, width and usage: no rows to judge.
#include <ATen/ops/ones_like.h>

#include <cstdio>

#include "bench_peer.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace {

// Left out at d = 1,024: four times the memory traffic, and the eager side takes 10 s a step.
bool trains_many(const PeerSizes& sizes) { return sizes.width <= 256 && sizes.side < 1024; }

void measure(PeerRun& run, const std::string& cell, OurSide& ours, EagerSide& eager,
             std::int64_t wanted, Batches::Usage usage) {
  const Batches batches(run, ours.sizes(), run.tokens(wanted), usage);
  const at::Tensor dy = at::ones_like(batches.all().front());
  const std::string name = cell + count_of(wanted, "token") +
                           (usage == Batches::Usage::zipf ? ", Zipf" : "") + "; beside eager";
  const auto forward = time_sides(run, run.repetitions(3),
                                  {[&ours, x = batches.turn()] { ours.forward(x()); },
                                   [&eager, x = batches.turn()] { eager.forward(x()); }});
  run.rows.push_back(
      rate_row("forward, " + name, "tokens/s", batches.tokens(), forward[0], forward[1]));
  if (!ours.trains() || !eager.trains() || wanted == 1) return;
  if (wanted > 64 && (!trains_many(ours.sizes()) || usage == Batches::Usage::zipf)) return;
  const auto step = time_sides(run, run.repetitions(3),
                               {[&ours, &dy, x = batches.turn()] { ours.step(x(), dy); },
                                [&eager, &dy, x = batches.turn()] { eager.step(x(), dy); }});
  run.rows.push_back(rate_row("forward + backward + Adam, " + name, "tokens/s", batches.tokens(),
                              step[0], step[1]));
  ours.clear_gradients();
  eager.clear_gradients();
}

void measure(PeerRun& run, const std::string& cell, OurSide& ours, EagerSide& eager) {
  for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{64}, std::int64_t{1024}}) {
    measure(run, cell, ours, eager, tokens, Batches::Usage::uniform);
    if (tokens > 1) measure(run, cell, ours, eager, tokens, Batches::Usage::zipf);
  }
}

}  // namespace

void bench_axes(PeerRun& run) {
  for (const std::int64_t width : {std::int64_t{256}, std::int64_t{1024}}) {
    for (const std::int64_t side :
         {std::int64_t{1024}, std::int64_t{512}, std::int64_t{256}, std::int64_t{128}}) {
      if (run.smoke && (side > 128 || width > 256)) continue;
      const PeerSizes sizes = run.sizes(side, width);
      char cell[64];
      std::snprintf(cell, sizeof cell, "N = %d^2, d = %d, ", static_cast<int>(side),
                    static_cast<int>(width));
      if (side == 1024 && width == 256) {
        if (!run.fits(cell, 2 * sizes.table_bytes())) continue;
        OurSide& ours = run.ours();
        measure(run, cell, ours, run.eager());
        run.drop_sides();
        continue;
      }
      run.drop_sides();
      if (!run.fits(cell, 2 * sizes.table_bytes())) continue;
      OurSide ours(sizes);
      EagerSide eager(ours);
      if (run.fits(std::string(cell) + "training", 6 * sizes.table_bytes())) {
        ours.attach_optimizer();
        eager.attach_optimizer();
      }
      measure(run, cell, ours, eager);
    }
  }
}

}  // namespace perennial::bench
