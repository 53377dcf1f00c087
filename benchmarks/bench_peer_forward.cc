// SPDX-License-Identifier: Apache-2.0
// Forward and retrieval beside eager LibTorch, N = 1M, d = 256.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/norm.h>

#include "bench_peer.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace {

// Experts in half the bytes. Their values are ours rounded, so the outputs agree to that.
void bf16_row(PeerRun& run, OurSide& ours, EagerSide& eager, const Batches& batches) {
  OurSide half(ours.sizes(), kernels::WeightType::bf16);
  const at::Tensor& x = batches.all().front();
  const at::Tensor exact = ours.forward(x);
  const double error = ((half.forward(x) - exact).norm() / exact.norm()).item<double>();
  if (error > 0.02)
    fail(std::string("bf16 experts give outputs that are off by ").append(std::to_string(error)));
  const auto seconds = time_sides(run, run.repetitions(7),
                                  {[&half, x = batches.turn()] { half.forward(x()); },
                                   [&eager, x = batches.turn()] { eager.forward(x()); }});
  run.rows.push_back(rate_row("forward, 1,024 tokens, bf16 experts; beside eager in float32",
                              "tokens/s", batches.tokens(), seconds[0], seconds[1], 5.0));
}

}  // namespace

void bench_forward(PeerRun& run) {
  OurSide& ours = run.ours();
  if (!run.fits("forward, N = 1M, d = 256", ours.sizes().table_bytes())) return;
  EagerSide& eager = run.eager();
  const Batches many(run, ours.sizes(), run.tokens(1024)), one(run, ours.sizes(), 1);
  require_equal_forward(ours, eager, many.all().front());
  require_equal_forward(ours, eager, one.all().front());

  const auto forward = [&](const char* name, const Batches& batches, double target) {
    const auto seconds = time_sides(run, run.repetitions(7),
                                    {[&ours, x = batches.turn()] { ours.forward(x()); },
                                     [&eager, x = batches.turn()] { eager.forward(x()); }});
    run.rows.push_back(rate_row(std::string(name) + "; beside eager", "tokens/s", batches.tokens(),
                                seconds[0], seconds[1], target));
  };
  forward("forward, 1,024 tokens", many, 4.0);
  forward("forward, 1 token", one, 3.0);
  bf16_row(run, ours, eager, many);

  // The query projection and the two products over the whole batch; their top-k is not counted.
  const auto seconds =
      time_sides(run, run.repetitions(7),
                 {[&ours, x = many.turn()] { (void)ours.layer().retrieve(x(), 0); },
                  [&eager, x = many.turn()] {
                    const at::NoGradGuard no_grad;
                    (void)eager.scores(x());
                  },
                  [&eager, x = many.turn()] {
                    const at::NoGradGuard no_grad;
                    (void)eager.retrieve(x());
                  }});
  run.rows.push_back(rate_row("retrieval, 1,024 tokens; beside projection and two at::matmul alone",
                              "tokens/s", many.tokens(), seconds[0], seconds[1], 1.0));
  run.rows.push_back(rate_row("retrieval, 1,024 tokens; beside eager with its top-k", "tokens/s",
                              many.tokens(), seconds[0], seconds[2]));

  if (run.threads < 2) return;
  const auto with = [&](int threads) {
    return [&ours, threads, x = many.turn()] {
      const ThreadsScope scope(threads);
      ours.forward(x());
    };
  };
  const auto scaling = time_sides(run, run.repetitions(7), {with(2), with(1)});
  Row threads = rate_row("forward, 1,024 tokens, 2 threads; beside 1", "tokens/s", many.tokens(),
                         scaling[0], scaling[1], 1.6);
  threads.ceiling = threads.baseline.median * run.bandwidth_scaling();
  run.rows.push_back(threads);
}

}  // namespace perennial::bench
