// SPDX-License-Identifier: Apache-2.0
// The kernels of retrieval and scores on a device.
#include "device_selection.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cstring>
#include <vector>

#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "runtime.h"
#include "token_threads.h"

namespace perennial::cuda {

namespace {

kernels::cuda::RetrieveArgs retrieve_args(const PeerOptions& options, const at::Tensor& query,
                                          const at::Tensor& row_keys, const at::Tensor& col_keys) {
  const auto side = [](const at::Tensor& keys) {
    return kernels::cuda::SubKeys{keys.size(1), keys.size(0) > 1, data(keys)};
  };
  kernels::cuda::RetrieveArgs args;
  args.heads = options.heads;
  args.k = options.top_k;
  args.sub_dim = options.d_key / 2;
  args.query = data(query);
  args.rows = side(row_keys);
  args.cols = side(col_keys);
  return args;
}

// A backward's: what retrieval found is read only.
kernels::cuda::RetrieveArgs backward_args(const PeerOptions& options, const Scored& scored) {
  kernels::cuda::RetrieveArgs args =
      retrieve_args(options, scored.query, scored.row_keys, scored.col_keys);
  args.ids = const_cast<std::int64_t*>(scored.ids.const_data_ptr<std::int64_t>());
  args.row_index = const_cast<std::int32_t*>(scored.row_index.const_data_ptr<std::int32_t>());
  return args;
}

}  // namespace

Retrieved DeviceSelection::retrieve(const Router& router, const at::Tensor& query,
                                    const at::Tensor& row_keys, const at::Tensor& col_keys) const {
  const PeerOptions& options = router.options();
  const at::Device device = query.device();
  const std::int64_t tokens = query.size(0), slots = options.heads * options.top_k;
  const at::TensorOptions like = query.options();
  Retrieved found{at::empty({tokens, slots}, like.dtype(at::kLong)),
                  at::empty({tokens, slots}, like),
                  at::empty({tokens, slots}, like.dtype(at::kInt))};
  const std::vector<kernels::KeySegment> segments = router.segments();
  const auto bytes = static_cast<std::int64_t>(segments.size() * sizeof(kernels::KeySegment));
  at::Tensor listed = host_buffer(device, bytes);
  std::memcpy(listed.data_ptr(), segments.data(), static_cast<std::size_t>(bytes));
  const at::Tensor on_device = listed.to(device, /*non_blocking=*/true);
  kernels::cuda::RetrieveArgs args = retrieve_args(options, query, row_keys, col_keys);
  at::Tensor low_query, low_rows, low_cols;
  if (router.amp == Amp::bf16) {
    const auto low = [](const at::Tensor& tensor, at::Tensor& kept) {
      kept = tensor.to(at::kBFloat16);
      return static_cast<const kernels::BFloat16*>(kept.const_data_ptr());
    };
    args.rounded_query = low(query, low_query);
    args.rows.rounded = low(row_keys, low_rows);
    args.cols.rounded = low(col_keys, low_cols);
  }
  args.segments = segments.data();
  args.device_segments = static_cast<const kernels::KeySegment*>(on_device.const_data_ptr());
  args.segment_count = static_cast<std::int64_t>(segments.size());
  args.ids = found.ids.mutable_data_ptr<std::int64_t>();
  args.scores = out(found.scores);
  args.row_index = found.row_index.mutable_data_ptr<std::int32_t>();
  const std::size_t needed = kernels::cuda::retrieve_workspace(args, tokens);
  check(kernels::cuda::retrieve(
            args, tokens, experts_->workspace().bytes(static_cast<std::int64_t>(needed)).data_ptr(),
            needed, current_stream(device)),
        "retrieval");
  return found;
}

at::Tensor DeviceSelection::weigh(const PeerOptions& options, const at::Tensor& scores) const {
  at::Tensor weights = at::empty_like(scores);
  check(kernels::cuda::score_forward(options.score, options.heads, options.top_k, data(scores),
                                     out(weights), scores.size(0), current_stream(scores.device())),
        "the score function");
  return weights;
}

at::Tensor DeviceSelection::drop_out(const PeerOptions& options, std::uint64_t draw,
                                     const at::Tensor& values) const {
  at::Tensor kept = at::empty_like(values);
  check(kernels::cuda::dropout(static_cast<std::uint64_t>(options.seed), draw, options.dropout,
                               data(values), out(kept), values.numel(),
                               current_stream(values.device())),
        "dropout");
  return kept;
}

void DeviceSelection::backward_query(const PeerOptions& options, const Scored& scored,
                                     const at::Tensor& weights, const at::Tensor& dweights,
                                     at::Tensor& dscores, at::Tensor& dquery) const {
  const std::int64_t tokens = weights.size(0);
  const kernels::cuda::Stream stream = current_stream(weights.device());
  check(kernels::cuda::score_backward(options.score, options.heads, options.top_k, data(weights),
                                      data(dweights), out(dscores), tokens, stream),
        "the score function's backward");
  check(kernels::cuda::retrieve_backward_query(backward_args(options, scored), data(dscores),
                                               tokens, out(dquery), stream),
        "the query's gradient");
}

void DeviceSelection::backward_keys(const PeerOptions& options, const Scored& scored,
                                    const at::Tensor& dscores, at::Tensor& drow_keys,
                                    at::Tensor& dcol_keys) const {
  const std::int64_t tokens = dscores.size(0);
  const kernels::cuda::RetrieveArgs args = backward_args(options, scored);
  const std::size_t bytes = kernels::cuda::retrieve_backward_keys_workspace(args, tokens);
  check(kernels::cuda::retrieve_backward_keys(
            args, data(dscores), tokens,
            experts_->workspace().bytes(static_cast<std::int64_t>(bytes)).data_ptr(), bytes,
            out(drow_keys), out(dcol_keys), current_stream(dscores.device())),
        "the sub-keys' gradient");
}

}  // namespace perennial::cuda
