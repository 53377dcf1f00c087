// SPDX-License-Identifier: Apache-2.0
// The backward of retrieval: gradients of scores scattered to queries and sub-keys.
#include "perennial/kernels/expert_id.h"
#include "perennial/kernels/retrieve.h"
#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "retrieve_backward.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

void backward_query_target(const RetrieveArgs& args, const float* dscores, std::int64_t begin,
                           std::int64_t end, float* dquery) {
  const std::int64_t dim = args.sub_dim;
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t h = 0; h < args.heads; ++h) {
      float* out = dquery + (t * args.heads + h) * 2 * dim;
      for (std::int64_t i = 0; i < 2 * dim; ++i) out[i] = 0;
      const float* row_keys = args.rows.keys_of(h, dim);
      const float* col_keys = args.cols.keys_of(h, dim);
      const std::int64_t first = (t * args.heads + h) * args.k;
      for (std::int64_t slot = first; slot < first + args.k; ++slot) {
        axpy(dim, dscores[slot], row_keys + args.row_index[slot] * dim, out);
        axpy(dim, dscores[slot], col_keys + col_of(args.ids[slot]) * dim, out + dim);
      }
    }
  }
}

void backward_keys_target(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                          std::int64_t head_begin, std::int64_t head_end, float* drow_keys,
                          float* dcol_keys) {
  const std::int64_t dim = args.sub_dim;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = head_begin; h < head_end; ++h) {
      const float* query = args.query + (t * args.heads + h) * 2 * dim;
      float* row_grad = drow_keys + (args.rows.per_head ? h * args.rows.count * dim : 0);
      float* col_grad = dcol_keys + (args.cols.per_head ? h * args.cols.count * dim : 0);
      const std::int64_t first = (t * args.heads + h) * args.k;
      for (std::int64_t slot = first; slot < first + args.k; ++slot) {
        axpy(dim, dscores[slot], query, row_grad + args.row_index[slot] * dim);
        axpy(dim, dscores[slot], query + dim, col_grad + col_of(args.ids[slot]) * dim);
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(backward_query_target);
HWY_EXPORT(backward_keys_target);

void retrieve_backward_query(const RetrieveArgs& args, const float* dscores, std::int64_t begin,
                             std::int64_t end, float* dquery) {
  HWY_DYNAMIC_DISPATCH(backward_query_target)(args, dscores, begin, end, dquery);
}

void retrieve_backward_keys(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                            std::int64_t head_begin, std::int64_t head_end, float* drow_keys,
                            float* dcol_keys) {
  HWY_DYNAMIC_DISPATCH(backward_keys_target)
  (args, dscores, tokens, head_begin, head_end, drow_keys, dcol_keys);
}

}  // namespace perennial::kernels
#endif
