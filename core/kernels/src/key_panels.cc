// SPDX-License-Identifier: Apache-2.0
// Scores against panels: a block of accumulators a few tokens high and some vectors wide.
#include "perennial/kernels/key_panels.h"

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "key_panels.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// 6 x 4 accumulators, 4 vectors of keys and a broadcast fit 32 registers; 6 x 2 fit 16.
constexpr std::int64_t kBlockTokens = 6;
constexpr std::int64_t kBlockVectors = kLanes == 8 ? 2 : 4;
constexpr std::int64_t kBlockKeys = kBlockVectors * kLanes;
static_assert(kPanelKeys % kBlockKeys == 0);

template <int R>
HWY_INLINE void score_block(std::int64_t dim, const float* query, std::int64_t ldq,
                            const float* keys, float* out, std::int64_t ldo) {
  const FloatTag d;
  Floats acc[R][kBlockVectors];
  HWY_UNROLL(6)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int v = 0; v < kBlockVectors; ++v) acc[r][v] = hn::Zero(d);
  }
  for (std::int64_t i = 0; i < dim; ++i) {
    Floats key[kBlockVectors];
    HWY_UNROLL(4)
    for (int v = 0; v < kBlockVectors; ++v) {
      key[v] = hn::LoadU(d, keys + i * kPanelKeys + v * kLanes);
    }
    HWY_UNROLL(6)
    for (int r = 0; r < R; ++r) {
      const Floats q = hn::Set(d, query[r * ldq + i]);
      HWY_UNROLL(4)
      for (int v = 0; v < kBlockVectors; ++v)
        acc[r][v] = fused_multiply_add(d, q, key[v], acc[r][v]);
    }
  }
  HWY_UNROLL(6)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int v = 0; v < kBlockVectors; ++v) hn::StoreU(acc[r][v], d, out + r * ldo + v * kLanes);
  }
}

// One panel for all tokens.
template <int R>
HWY_INLINE void score_tokens(std::int64_t dim, const float* query, std::int64_t ldq,
                             const float* panel, float* out, std::int64_t ldo) {
  for (std::int64_t at = 0; at < kPanelKeys; at += kBlockKeys) {
    score_block<R>(dim, query, ldq, panel + at, out + at, ldo);
  }
}

void score_panels_target(std::int64_t tokens, std::int64_t dim, const float* query,
                         std::int64_t ldq, const float* panels, std::int64_t begin,
                         std::int64_t end, float* out, std::int64_t ldo) {
  for (std::int64_t p = begin; p < end; ++p) {
    const float* panel = panels + p * kPanelKeys * dim;
    float* to = out + (p - begin) * kPanelKeys;
    std::int64_t t = 0;
    for (; t + kBlockTokens <= tokens; t += kBlockTokens) {
      score_tokens<kBlockTokens>(dim, query + t * ldq, ldq, panel, to + t * ldo, ldo);
    }
    for (; t + 2 <= tokens; t += 2) {
      score_tokens<2>(dim, query + t * ldq, ldq, panel, to + t * ldo, ldo);
    }
    if (t < tokens) score_tokens<1>(dim, query + t * ldq, ldq, panel, to + t * ldo, ldo);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(score_panels_target);

void pack_panels(std::int64_t n, std::int64_t dim, const float* keys, float* panels) {
  // Few dimensions at a time: the lines of 64 keys stay in the cache until they are used up.
  constexpr std::int64_t kStep = 16;
  for (std::int64_t p = 0; p < panels_of(n); ++p) {
    float* panel = panels + p * kPanelKeys * dim;
    const float* first = keys + p * kPanelKeys * dim;
    const std::int64_t here = n - p * kPanelKeys < kPanelKeys ? n - p * kPanelKeys : kPanelKeys;
    for (std::int64_t i0 = 0; i0 < dim; i0 += kStep) {
      const std::int64_t i1 = i0 + kStep < dim ? i0 + kStep : dim;
      for (std::int64_t i = i0; i < i1; ++i) {
        float* row = panel + i * kPanelKeys;
        for (std::int64_t j = 0; j < here; ++j) row[j] = first[j * dim + i];
        for (std::int64_t j = here; j < kPanelKeys; ++j) row[j] = 0;
      }
    }
  }
}

void score_panels(std::int64_t tokens, std::int64_t dim, const float* query, std::int64_t ldq,
                  const float* panels, std::int64_t begin, std::int64_t end, float* out,
                  std::int64_t ldo) {
  HWY_DYNAMIC_DISPATCH(score_panels_target)
  (tokens, dim, query, ldq, panels, begin, end, out, ldo);
}

}  // namespace perennial::kernels
#endif
