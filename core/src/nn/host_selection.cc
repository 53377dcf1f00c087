// SPDX-License-Identifier: Apache-2.0
// Retrieval by packed sub-keys, and the kernels of scores on the host.
#include "nn/host_selection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cstdint>
#include <vector>

#include "perennial/kernels/experts.h"
#include "perennial/kernels/retrieve.h"
#include "token_threads.h"

namespace perennial {

namespace {

kernels::RetrieveArgs retrieve_args(const PeerOptions& options, const at::Tensor& query) {
  kernels::RetrieveArgs args;
  args.heads = options.heads;
  args.k = options.top_k;
  args.sub_dim = options.d_key / 2;
  args.query = data(query);
  return args;
}

// A backward's: what retrieval found is read only.
kernels::RetrieveArgs backward_args(const PeerOptions& options, const Scored& scored) {
  const auto side = [](const at::Tensor& keys) {
    return kernels::SubKeys{
        .count = keys.size(1), .per_head = keys.size(0) > 1, .keys = data(keys)};
  };
  kernels::RetrieveArgs args = retrieve_args(options, scored.query);
  args.rows = side(scored.row_keys);
  args.cols = side(scored.col_keys);
  args.ids = const_cast<std::int64_t*>(scored.ids.const_data_ptr<std::int64_t>());
  args.row_index = const_cast<std::int32_t*>(scored.row_index.const_data_ptr<std::int32_t>());
  return args;
}

class HostSelection : public SelectionKernels {
 public:
  at::Tensor weigh(const PeerOptions& options, const at::Tensor& scores) const override {
    at::Tensor weights = at::empty_like(scores);
    over_tokens(0, scores.size(0), [&](auto begin, auto end) {
      kernels::score_forward(options.score, options.heads, options.top_k, data(scores),
                             out(weights), begin, end);
    });
    return weights;
  }

  at::Tensor drop_out(const PeerOptions& options, std::uint64_t draw,
                      const at::Tensor& values) const override {
    at::Tensor kept = at::empty_like(values);
    const std::int64_t slots = values.size(1);
    over_tokens(0, values.size(0), [&](auto begin, auto end) {
      kernels::dropout(static_cast<std::uint64_t>(options.seed), draw, options.dropout,
                       data(values), out(kept), begin * slots, end * slots);
    });
    return kept;
  }

  void backward_query(const PeerOptions& options, const Scored& scored, const at::Tensor& weights,
                      const at::Tensor& dweights, at::Tensor& dscores,
                      at::Tensor& dquery) const override {
    const kernels::RetrieveArgs args = backward_args(options, scored);
    over_tokens(0, weights.size(0), [&](auto begin, auto end) {
      kernels::score_backward(options.score, options.heads, options.top_k, data(weights),
                              data(dweights), out(dscores), begin, end);
      kernels::retrieve_backward_query(args, data(dscores), begin, end, out(dquery));
    });
  }

  void backward_keys(const PeerOptions& options, const Scored& scored, const at::Tensor& dscores,
                     at::Tensor& drow_keys, at::Tensor& dcol_keys) const override {
    const kernels::RetrieveArgs args = backward_args(options, scored);
    const auto keys = [&](std::int64_t begin, std::int64_t end) {
      kernels::retrieve_backward_keys(args, data(dscores), dscores.size(0), begin, end,
                                      out(drow_keys), out(dcol_keys));
    };
    if (options.sub_keys == SubKeys::per_head) {
      at::parallel_for(0, options.heads, 1, keys);
    } else {
      keys(0, options.heads);
    }
  }
};

}  // namespace

std::shared_ptr<const SelectionKernels> host_selection() {
  static const auto kernels = std::make_shared<const HostSelection>();
  return kernels;
}

Retrieved retrieve_experts(const Router& router, const at::Tensor& query) {
  const PeerOptions& options = router.options();
  const std::int64_t tokens = query.size(0), slots = options.heads * options.top_k;
  Retrieved found{at::empty({tokens, slots}, at::kLong), at::empty({tokens, slots}),
                  at::empty({tokens, slots}, at::kInt)};
  const std::vector<kernels::KeySegment> segments = router.segments();
  const at::Tensor scored = rounded(query, router.amp);
  kernels::RetrieveArgs args = retrieve_args(options, scored);
  args.segments = segments;
  args.rows = router.packed_rows();
  args.cols = router.packed_cols();
  args.ids = found.ids.mutable_data_ptr<std::int64_t>();
  args.scores = out(found.scores);
  args.row_index = found.row_index.mutable_data_ptr<std::int32_t>();
  if (few_tokens(tokens)) {
    share_out(0, options.heads, 1,
              [&](auto begin, auto end) { kernels::retrieve(args, 0, tokens, begin, end); });
  } else {
    over_tokens(0, tokens, [&](auto begin, auto end) {
      kernels::retrieve(args, begin, end, 0, options.heads);
    });
  }
  return found;
}

}  // namespace perennial
