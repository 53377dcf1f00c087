// SPDX-License-Identifier: Apache-2.0
// Sub-keys transposed into panels, and the scores of queries against them. One pass over the keys,
// so pack once for as many tokens as there are, and again only when the keys have changed.
// Thread-safe for disjoint outputs; allocates nothing; no alignment required.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// Keys a panel. Within it key j of dimension i is at [i * kPanelKeys + j]; keys past the last are
// zeros.
constexpr std::int64_t kPanelKeys = 64;

constexpr std::int64_t panels_of(std::int64_t keys) { return (keys + kPanelKeys - 1) / kPanelKeys; }
// Floats that the panels of n keys of width dim take.
constexpr std::int64_t panel_floats(std::int64_t n, std::int64_t dim) {
  return panels_of(n) * kPanelKeys * dim;
}

// keys: (n, dim). panels: (panels_of(n), dim, kPanelKeys), overwritten.
void pack_panels(std::int64_t n, std::int64_t dim, const float* keys, float* panels);

// out[t][(p - begin) * kPanelKeys + j] = sum_i query[t][i] panels[p][i][j], i ascending by fused
// multiply-adds from 0: the bits of a score depend on nothing but its query and its key. For panels
// [begin, end) and `tokens` rows of query and out, `ldq` and `ldo` floats apart.
void score_panels(std::int64_t tokens, std::int64_t dim, const float* query, std::int64_t ldq,
                  const float* panels, std::int64_t begin, std::int64_t end, float* out,
                  std::int64_t ldo);

}  // namespace perennial::kernels
