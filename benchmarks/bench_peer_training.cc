// SPDX-License-Identifier: Apache-2.0
// Forward, backward and Adam beside eager LibTorch with sparse gradients, N = 1M, d = 256.
#include <ATen/ops/ones_like.h>

#include "bench_peer.h"
#include "peer_sides.h"

namespace perennial::bench {
namespace {

template <class Side>
std::function<void()> steps(Side& side, const Batches& batches,
                            void (Side::*step)(const at::Tensor&, const at::Tensor&)) {
  return [&side, step, x = batches.turn(), dy = at::ones_like(batches.all().front())] {
    (side.*step)(x(), dy);
  };
}

// What a step has to move, at the pace the machine moves rows: each retrieved expert is read by the
// forward and by the backward, and its weights and two moments are read and written by the update.
std::vector<double> bound_seconds(PeerRun& run, double experts, double expert_bytes) {
  RowMemory memory(run.smoke ? 4096 : std::size_t{1} << 19);
  const std::vector<std::uint32_t> order = row_order(memory.rows(), true);
  const auto seconds = time_sides(run, run.repetitions(5),
                                  {[&] { memory.read(order); }, [&] { memory.update(order); }});
  const double rows = static_cast<double>(order.size());
  const double rows_of_expert = expert_bytes / RowMemory::kRowBytes;
  std::vector<double> bounds;
  for (std::size_t i = 0; i < seconds[0].size(); ++i) {
    bounds.push_back(experts * rows_of_expert * (2 * seconds[0][i] + 3 * seconds[1][i]) / rows);
  }
  return bounds;
}

void add_transient_row(PeerRun& run, OurSide& ours, EagerSide& eager, const Batches& batches) {
  const auto our_step = steps(ours, batches, &OurSide::step);
  const auto compact_step = steps(ours, batches, &OurSide::step_compact);
  const auto eager_step = steps(eager, batches, &EagerSide::step);
  std::vector<double> fused, compact, theirs;
  for (std::size_t i = 0; i < run.repetitions(3); ++i) {
    const auto megabytes = [&](const std::function<void()>& step) {
      const double bytes = transient_bytes(step);
      ours.clear_gradients();
      eager.clear_gradients();
      return 1e-6 * bytes;
    };
    fused.push_back(megabytes(our_step));
    compact.push_back(megabytes(compact_step));
    theirs.push_back(megabytes(eager_step));
  }
  run.rows.push_back(
      limit_row("memory of a step beyond weights and moments, 1,024 tokens <= 1/3 eager", "MB",
                fused, theirs, 1.0 / 3));
  run.rows.push_back(
      less_row("the same over a compact gradient; beside eager", "MB", compact, theirs));
}

}  // namespace

void bench_training(PeerRun& run) {
  OurSide& ours = run.ours();
  if (!run.fits("training, N = 1M, d = 256", 5 * ours.sizes().table_bytes())) return;
  EagerSide& eager = run.eager();
  const Batches many(run, ours.sizes(), run.tokens(1024));
  const auto backward =
      time_sides(run, run.repetitions(5),
                 {steps(ours, many, &OurSide::backward), steps(eager, many, &EagerSide::backward)});
  run.rows.push_back(rate_row("forward + backward, 1,024 tokens; beside eager, sparse gradients",
                              "tokens/s", many.tokens(), backward[0], backward[1], 5.0));
  ours.clear_gradients();
  eager.clear_gradients();

  ours.attach_optimizer();
  eager.attach_optimizer();
  require_equal_step(ours, eager, many.all().front());
  const auto seconds =
      time_sides(run, run.repetitions(5),
                 {steps(ours, many, &OurSide::step), steps(ours, many, &OurSide::step_compact),
                  steps(eager, many, &EagerSide::step)});
  const std::string name = "forward + backward + Adam, 1,024 tokens";
  run.rows.push_back(rate_row(name + "; beside eager, SparseAdam", "tokens/s", many.tokens(),
                              seconds[0], seconds[2], 8.0));
  run.rows.push_back(rate_row(name + ", compact gradient; beside eager, SparseAdam", "tokens/s",
                              many.tokens(), seconds[1], seconds[2], 6.0));
  add_transient_row(run, ours, eager, many);
  eager.clear_gradients();

  const std::uint64_t before = ours.sparse().experts_updated();
  ours.step(many.all().front(), at::ones_like(many.all().front()));
  const auto experts = static_cast<double>(ours.sparse().experts_updated() - before);
  const std::vector<double> bound = bound_seconds(run, experts, ours.sizes().expert_bytes());
  Row row = rate_row(name + "; beside moving its bytes", "tokens/s", many.tokens(), seconds[0],
                     bound, 0.7);
  row.ceiling = row.baseline.median;
  run.rows.push_back(row);

  if (run.threads < 2) return;
  const auto with = [&](int threads) {
    return [threads, step = steps(ours, many, &OurSide::step)] {
      const ThreadsScope scope(threads);
      step();
    };
  };
  const auto scaling = time_sides(run, run.repetitions(5), {with(2), with(1)});
  Row threads = rate_row(name + ", 2 threads; beside 1", "tokens/s", many.tokens(), scaling[0],
                         scaling[1], 1.6);
  threads.ceiling = threads.baseline.median * run.bandwidth_scaling();
  run.rows.push_back(threads);
}

}  // namespace perennial::bench
