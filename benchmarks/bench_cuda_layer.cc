// SPDX-License-Identifier: Apache-2.0
// The whole layer through its public interface, beside the layer by hand with eager LibTorch.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <memory>
#include <vector>

#include "bench_cuda.h"
#include "peer_sides.h"
#include "perennial/core/cuda.h"

namespace perennial::bench {
namespace {

// Pools beyond this take minutes to draw on the host.
constexpr double kMostPoolBytes = 17e9;
constexpr int kBatches = 4;

}  // namespace

void bench_layer(CudaRun& run, const Cell& cell) {
  const PeerSizes sizes{.side = cell.side,
                        .width = cell.d,
                        .heads = cell.heads,
                        .top_k = cell.top_k,
                        .d_key = 2 * cell.sub_dim};
  // bf16 experts are timed forward; their step's baseline would be another computation.
  const bool trains = cell.type == kernels::WeightType::f32;
  if (record_memory(cell) > kMostPoolBytes) return;
  kernels::UpdateRule adam;
  adam.algorithm = kernels::UpdateAlgorithm::adam;
  const double tables = static_cast<double>(cell.experts() * 2 * cell.d) * sizeof(float);
  const double bytes =
      record_memory(cell) + tables + batch_memory(cell) + eager_expert_memory(cell) +
      eager_retrieval_memory(cell) +
      (trains ? state_memory(cell, adam) + 2 * tables + 3 * eager_expert_memory(cell) : 0);
  if (!run.fits("layer", cell, bytes)) return;
  const c10::DeviceGuard guard(run.device);
  OurSide ours(sizes, cell.type, [&](PeerImpl& layer) { cuda::place_on(layer, run.device); });
  // The stand-in device of the tests has no sparse tensors.
  EagerSide eager(ours, run.device.is_cuda() ? run.device : at::kCPU);
  std::vector<at::Tensor> batches;
  for (int i = 0; i < kBatches; ++i) {
    batches.push_back(at::randn({cell.tokens, cell.d}).to(run.device));
  }
  const auto batch = [&](int i) -> const at::Tensor& {
    return batches[static_cast<std::size_t>(i % kBatches)];
  };
  const double tolerance = cell.type == kernels::WeightType::bf16 ? 2e-2 : 1e-3;
  require_equal_forward(ours, eager, batch(0), tolerance);
  const auto row = [&](const char* what, const std::vector<Sample>& times) {
    CudaRow made{.kernel = what, .cell = cell, .us = times[0]};
    made.eager_us = times[1];
    return made;
  };
  run.add(row("layer: forward", run.time({[&](int i) { (void)ours.forward(batch(i)); },
                                          [&](int i) { (void)eager.forward(batch(i)); }})));
  if (!trains) return;
  ours.attach_optimizer();
  eager.attach_optimizer();
  require_equal_step(ours, eager, batch(0));
  const at::Tensor dy = at::ones_like(batch(0));
  run.add(
      row("layer: forward + backward", run.time({[&](int i) { ours.backward(batch(i), dy); },
                                                 [&](int i) { eager.backward(batch(i), dy); }})));
  ours.clear_gradients();
  eager.clear_gradients();
  CudaRow step = row("layer: step, Adam; eager with sparse gradients",
                     run.time({[&](int i) { ours.step(batch(i), dy); },
                               [&](int i) { eager.step(batch(i), dy); }}));
  if (has_targets(cell)) step.ratio_target = 8;
  run.add(step);
}

}  // namespace perennial::bench
