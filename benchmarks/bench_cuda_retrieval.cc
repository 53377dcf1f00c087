// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval from given queries, beside at::matmul and at::topk.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>

#include <vector>

#include "bench_cuda.h"
#include "perennial/core/error.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "runtime.h"

namespace perennial::bench {
namespace {

// The usual way, of queries (T, H, 2 D) and keys (H, side, D): experts as row x side + column,
// (T, H, K).
at::Tensor eager_retrieval(const Cell& cell, const at::Tensor& query, const at::Tensor& row_keys,
                           const at::Tensor& col_keys) {
  const std::int64_t k = cell.top_k;
  const at::Tensor q = query.transpose(0, 1);
  const auto scores = [&](std::int64_t at, const at::Tensor& keys) {
    return at::matmul(q.narrow(2, at, cell.sub_dim), keys.transpose(1, 2)).to(at::kFloat);
  };
  const auto [rows, row_ids] = at::topk(scores(0, row_keys), k);
  const auto [cols, col_ids] = at::topk(scores(cell.sub_dim, col_keys), k);
  const auto [best, pairs] = at::topk((rows.unsqueeze(-1) + cols.unsqueeze(-2)).flatten(2), k);
  return (row_ids.gather(2, at::floor_divide(pairs, k)) * cell.side +
          col_ids.gather(2, at::remainder(pairs, k)))
      .transpose(0, 1);
}

// Ties within rounding aside, both found the same experts.
void require_same(const Cell& cell, const at::Tensor& ours, const at::Tensor& eager) {
  const at::Tensor same =
      (std::get<0>(ours.sort(-1)) == std::get<0>(eager.sort(-1))).flatten(1).all(-1);
  const auto share = same.to(at::kFloat).mean().item<double>();
  if (share < 0.98) {
    throw Error("retrieval and eager LibTorch agree for a share of " + std::to_string(share) +
                " of " + std::to_string(cell.tokens) + " tokens only");
  }
}

}  // namespace

void bench_retrieval(CudaRun& run, const Cell& cell) {
  // It knows no experts' width: once for all of them.
  if (!run.smoke && cell.d != 256) return;
  const at::NoGradGuard no_grad;
  const c10::DeviceGuard guard(run.device);
  const bool bf16 = cell.type == kernels::WeightType::bf16;
  const auto stream = cuda::current_stream(run.device);
  const auto normal = [&](at::IntArrayRef shape) {
    return at::randn(shape, at::kFloat).to(bf16 ? at::kBFloat16 : at::kFloat).to(run.device);
  };
  const at::Tensor query = normal({cell.tokens, cell.heads, 2 * cell.sub_dim});
  const at::Tensor row_keys = normal({cell.heads, cell.side, cell.sub_dim});
  const at::Tensor col_keys = normal({cell.heads, cell.side, cell.sub_dim});
  const kernels::KeySegment segment{0, cell.side, cell.side, 0};
  const at::Tensor segments = at::from_blob(const_cast<kernels::KeySegment*>(&segment),
                                            {static_cast<std::int64_t>(sizeof(segment))}, at::kByte)
                                  .clone()
                                  .to(run.device);
  const at::TensorOptions here = at::TensorOptions().device(run.device);
  const std::vector<std::int64_t> shape = {cell.tokens, cell.heads, cell.top_k};
  const at::Tensor ids = at::empty(shape, here.dtype(at::kLong)), scores = at::empty(shape, here),
                   row_index = at::empty(shape, here.dtype(at::kInt));
  kernels::cuda::RetrieveArgs args;
  args.heads = cell.heads;
  args.k = cell.top_k;
  args.sub_dim = cell.sub_dim;
  if (bf16) {
    const auto rounded = [](const at::Tensor& tensor) {
      return static_cast<const kernels::BFloat16*>(tensor.const_data_ptr());
    };
    args.rounded_query = rounded(query);
    args.rows = {cell.side, true, nullptr, rounded(row_keys)};
    args.cols = {cell.side, true, nullptr, rounded(col_keys)};
  } else {
    args.query = query.const_data_ptr<float>();
    args.rows = {cell.side, true, row_keys.const_data_ptr<float>()};
    args.cols = {cell.side, true, col_keys.const_data_ptr<float>()};
  }
  args.segments = &segment;
  args.device_segments = static_cast<const kernels::KeySegment*>(segments.const_data_ptr());
  args.segment_count = 1;
  args.ids = ids.mutable_data_ptr<std::int64_t>();
  args.scores = scores.mutable_data_ptr<float>();
  args.row_index = row_index.mutable_data_ptr<std::int32_t>();
  const std::size_t room = kernels::cuda::retrieve_workspace(args, cell.tokens);
  const at::Tensor workspace = at::empty({static_cast<std::int64_t>(room)}, here.dtype(at::kByte));
  const auto ours = [&](int /*i*/) {
    cuda::check(kernels::cuda::retrieve(args, cell.tokens, workspace.data_ptr(), room, stream),
                "retrieval");
  };
  CudaRow row{.kernel = bf16 ? "retrieval, bf16 inputs" : "retrieval",
              .cell = cell,
              .us = {},
              .work = retrieval_work(cell, bf16)};
  if (cell.tokens == 4096 && cell.side == 1024) row.ratio_target = 5;
  if (!run.fits("retrieval, eager", cell, eager_retrieval_memory(cell))) {
    row.us = run.time(ours);
    return run.add(row);
  }
  ours(0);
  require_same(
      cell,
      ids.floor_divide(std::int64_t{1} << 32) * cell.side + ids.remainder(std::int64_t{1} << 32),
      eager_retrieval(cell, query.to(at::kFloat), row_keys.to(at::kFloat),
                      col_keys.to(at::kFloat)));
  const std::vector<Sample> times =
      run.time({ours, [&](int /*i*/) { (void)eager_retrieval(cell, query, row_keys, col_keys); }});
  row.us = times[0];
  row.eager_us = times[1];
  run.add(row);
}

}  // namespace perennial::bench
