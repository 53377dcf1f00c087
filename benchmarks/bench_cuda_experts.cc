// SPDX-License-Identifier: Apache-2.0
// The experts' kernels: forward, backward, grouping and updates, over ids that are uniform.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <vector>

#include "bench_cuda.h"
#include "cuda_device.h"
#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/optimizer.h"
#include "runtime.h"

namespace perennial::bench {
namespace {

constexpr std::uint32_t kTile = 8;  // experts a page
constexpr int kSets = 4;  // of ids, in turn, so that small batches do not find theirs in the cache

at::Tensor noise(const CudaRun& run, at::IntArrayRef shape, bool bf16 = false) {
  at::Tensor out = at::empty(shape, at::TensorOptions().device(run.device));
  fill_with_noise(out.mutable_data_ptr<float>(), out.numel(), bf16,
                  cuda::current_stream(run.device));
  return out;
}

// Values of the host as bytes on the device.
template <class T>
at::Tensor to_device(const CudaRun& run, std::vector<T> values) {
  return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size() * sizeof(T))},
                       at::kByte)
      .clone()
      .to(run.device);
}

// Records of all experts of a cell, on pages one after the other.
class Records {
 public:
  // floats: of a record; a multiple of 4.
  Records(const CudaRun& run, const Cell& cell, std::int64_t floats, at::Tensor values)
      : floats_(floats), values_(std::move(values)) {
    const std::int64_t tiles = (cell.side + kTile - 1) / kTile, pages = cell.side * tiles;
    const auto start = reinterpret_cast<std::int64_t>(values_.data_ptr());
    const std::int64_t bytes = kTile * floats * static_cast<std::int64_t>(sizeof(float));
    frames_ = at::arange(start, start + pages * bytes, bytes, at::kLong).to(run.device);
    spans_ = to_device(
        run, std::vector<kernels::PageSpan>{{0, static_cast<std::uint32_t>(cell.side),
                                             static_cast<std::uint32_t>(tiles),
                                             reinterpret_cast<float* const*>(frames_.data_ptr())}});
  }
  kernels::cuda::Frames table() const {
    return {static_cast<const kernels::PageSpan*>(spans_.const_data_ptr()), 1, kTile, floats_};
  }
  const at::Tensor& values() const { return values_; }  // (N, floats)

 private:
  std::int64_t floats_;
  at::Tensor values_, frames_, spans_;
};

// A batch's arrays, as a layer has them.
struct Batch {
  Batch(const CudaRun& run, const Cell& cell)
      : rows(at::randint(cell.experts(), {kSets, cell.uses()}, at::kLong).to(run.device)),
        ids(rows.floor_divide(cell.side) * (std::int64_t{1} << 32) + rows.remainder(cell.side)),
        x(noise(run, {cell.tokens, cell.d})),
        dy(noise(run, {cell.tokens, cell.d})),
        y(at::empty_like(x)),
        dx(at::empty_like(x)),
        weights(noise(run, {cell.tokens, cell.slots()})),
        pre(at::empty_like(weights)),
        coefficients(at::empty_like(weights)),
        dweights(at::empty_like(weights)),
        cu(at::empty_like(weights)),
        cv(at::empty_like(weights)) {
    different = std::get<0>(at::unique_consecutive(std::get<0>(rows.select(0, 0).sort()))).numel();
  }
  const std::int64_t* ids_of(int i) const {
    return ids.const_data_ptr<std::int64_t>() + i % kSets * ids.size(1);
  }
  at::Tensor rows, ids;  // (kSets, T S): row x side + column, and expert ids
  at::Tensor x, dy, y, dx, weights, pre, coefficients, dweights, cu, cv;
  std::int64_t different = 0;
};

float* out(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }
const float* data(const at::Tensor& tensor) { return tensor.const_data_ptr<float>(); }

// Beside at::embedding and at::bmm over the same records.
void bench_forward(CudaRun& run, const Cell& cell, const Records& records, const Batch& batch,
                   double random_rows) {
  const auto stream = cuda::current_stream(run.device);
  kernels::cuda::ExpertArgs args;
  args.layout = cell.layout();
  args.frames = records.table();
  args.slots = cell.slots();
  args.weights = data(batch.weights);
  args.x = data(batch.x);
  const auto ours = [&](int i) {
    args.ids = batch.ids_of(i);
    cuda::check(kernels::cuda::experts_forward(args, cell.tokens, out(batch.coefficients),
                                               out(batch.y), out(batch.pre), nullptr, stream),
                "the experts' forward");
  };
  CudaRow row{.kernel = "experts forward",
              .cell = cell,
              .us = {},
              .work = forward_work(cell, batch.different),
              .random_rows = random_rows};
  if (has_targets(cell) && cell.type == kernels::WeightType::bf16) row.share_target = 0.8;
  if (!run.fits("experts forward, eager", cell, eager_expert_memory(cell))) {
    row.us = run.time(ours);
    return run.add(row);
  }
  const bool bf16 = cell.type == kernels::WeightType::bf16;
  const at::Tensor table = bf16 ? records.values().view(at::kBFloat16) : records.values();
  const at::Tensor u = table.narrow(1, args.layout.u(), cell.d);
  const at::Tensor v = table.narrow(1, args.layout.v(), cell.d);
  const at::Tensor x = bf16 ? batch.x.to(at::kBFloat16) : batch.x;
  const at::Tensor weights = bf16 ? batch.weights.to(at::kBFloat16) : batch.weights;
  at::Tensor answer;
  const auto eager = [&](int i) {
    const at::Tensor ids = batch.rows.select(0, i % kSets).view({cell.tokens, cell.slots()});
    const at::Tensor pre = at::bmm(at::embedding(u, ids), x.unsqueeze(2)).squeeze(2);
    answer = at::bmm((at::gelu(pre) * weights).unsqueeze(1), at::embedding(v, ids)).squeeze(1);
  };
  ours(0);
  eager(0);
  require_near("the experts' forward", cell, batch.y, answer.to(at::kFloat), bf16 ? 3e-2 : 1e-4);
  const std::vector<Sample> times = run.time({ours, eager});
  row.us = times[0];
  row.eager_us = times[1];
  run.add(row);
}

// Backward over the tokens, grouping of uses and Adam, each and together. Eager LibTorch's are part
// of the layer's rows.
void bench_training(CudaRun& run, const Cell& cell, const Records& records, const Batch& batch,
                    double random_rows) {
  kernels::UpdateRule rule;
  rule.algorithm = kernels::UpdateAlgorithm::adam;
  rule.lr = 1e-9;
  const auto stream = cuda::current_stream(run.device);
  const auto bytes = [&](std::int64_t n) {
    return at::empty({n}, at::TensorOptions().device(run.device).dtype(at::kByte));
  };
  kernels::cuda::ExpertArgs args;
  args.layout = cell.layout();
  args.frames = records.table();
  args.slots = cell.slots();
  args.weights = data(batch.weights);
  args.x = data(batch.x);
  const auto backward = [&](int i) {
    args.ids = batch.ids_of(i);
    cuda::check(kernels::cuda::experts_backward_tokens(
                    args, cell.tokens, data(batch.pre), nullptr, data(batch.dy), out(batch.dx),
                    out(batch.dweights), out(batch.cu), out(batch.cv), nullptr, stream),
                "the experts' backward");
  };
  run.add({.kernel = "experts backward",
           .cell = cell,
           .us = run.time(backward),
           .work = backward_work(cell, batch.different),
           .random_rows = random_rows});

  const kernels::cuda::OpenGeneration generation{0, static_cast<std::uint32_t>(cell.side),
                                                 static_cast<std::uint32_t>(cell.side)};
  const std::size_t room = kernels::cuda::group_uses_workspace(cell.uses(), generation);
  const at::Tensor workspace = bytes(static_cast<std::int64_t>(room));
  const at::Tensor ids = bytes(cell.uses() * 8), offsets = bytes((cell.uses() + 1) * 4),
                   uses = bytes(cell.uses() * static_cast<std::int64_t>(sizeof(kernels::Use))),
                   experts = bytes(4);
  const kernels::cuda::ExpertUses grouped{
      static_cast<std::int64_t*>(ids.data_ptr()), static_cast<std::uint32_t*>(offsets.data_ptr()),
      static_cast<kernels::Use*>(uses.data_ptr()), static_cast<std::uint32_t*>(experts.data_ptr())};
  const auto group = [&](int i) {
    const kernels::cuda::RetrievedIds from{batch.ids_of(i), cell.uses()};
    cuda::check(kernels::cuda::group_uses(&from, 1, generation, workspace.data_ptr(), room, grouped,
                                          stream),
                "grouping");
  };
  run.add({.kernel = "grouping of uses",
           .cell = cell,
           .us = run.time(group),
           .work = grouping_work(cell)});

  if (!run.fits("update, adam", cell, state_memory(cell, rule))) return;
  const std::int64_t state_floats = kernels::update_state_floats(rule, cell.layout());
  const std::int64_t pages = cell.side * ((cell.side + kTile - 1) / kTile);
  const Records state(
      run, cell, state_floats,
      at::zeros({pages * kTile, state_floats}, at::TensorOptions().device(run.device)));
  const at::Tensor contributions = to_device(
      run, std::vector<kernels::Contribution>{{cell.slots(), data(batch.x), data(batch.dy),
                                               data(batch.cu), data(batch.cv), nullptr}});
  kernels::cuda::UpdateArgs update;
  update.rule = rule;
  update.layout = cell.layout();
  update.weights = records.table();
  update.state = state.table();
  update.ids = grouped.ids;
  update.experts = grouped.experts;
  update.most_experts = std::min(cell.uses(), cell.experts());
  update.offsets = grouped.offsets;
  update.uses = grouped.uses;
  update.contributions = static_cast<const kernels::Contribution*>(contributions.const_data_ptr());
  const auto step = [&](int /*i*/) {
    cuda::check(kernels::cuda::update_experts(update, stream), "the update");
  };
  const Work work = update_work(cell, batch.different, rule);
  group(0);
  run.add({.kernel = "update, adam",
           .cell = cell,
           .us = run.time(step),
           .work = work,
           .random_rows = random_rows});
  CudaRow all{.kernel = "backward + grouping + update",
              .cell = cell,
              .us = run.time([&](int i) {
                backward(i);
                group(i);
                step(i);
              }),
              .work = backward_work(cell, batch.different) + grouping_work(cell) + work,
              .random_rows = random_rows};
  if (has_targets(cell) && cell.type == kernels::WeightType::bf16) all.share_target = 0.5;
  run.add(all);
}

}  // namespace

void bench_experts(CudaRun& run, const Cell& cell) {
  const at::NoGradGuard no_grad;
  const c10::DeviceGuard guard(run.device);
  if (!run.fits("experts", cell, record_memory(cell) + batch_memory(cell))) return;
  const std::int64_t floats = cell.layout().record_floats();
  const std::int64_t pages = cell.side * ((cell.side + kTile - 1) / kTile);
  const Records records(
      run, cell, floats,
      noise(run, {pages * kTile, floats}, cell.type == kernels::WeightType::bf16));
  const Batch batch(run, cell);
  const at::Tensor sink = at::empty({1}, at::TensorOptions().device(run.device));
  // The ceiling: as many different rows in random order, each once.
  const std::int64_t rows = std::min(cell.uses(), cell.experts());
  const at::Tensor order =
      at::randperm(cell.experts(), at::kLong).narrow(0, 0, rows).contiguous().to(run.device);
  const Sample us = run.time([&](int /*i*/) {
    read_rows(data(records.values()), order.const_data_ptr<std::int64_t>(), rows, floats, out(sink),
              cuda::current_stream(run.device));
  });
  const double bytes = static_cast<double>(rows) * cell.record_bytes();
  const double random_rows = bytes / us.median / 1e3;
  run.add({.kernel = "reading random rows",
           .cell = cell,
           .us = us,
           .work = {bytes, bytes, 0},
           .random_rows = random_rows});
  bench_forward(run, cell, records, batch, random_rows);
  bench_training(run, cell, records, batch, random_rows);
}

}  // namespace perennial::bench
