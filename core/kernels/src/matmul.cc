// SPDX-License-Identifier: Apache-2.0
// Register-blocked small matrix products with one fixed order of summation per output.
#include "perennial/kernels/matmul.h"

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "matmul.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// Tile of matmul_nt: kTileRows x kTileCols outputs fill one vector, so that one transposing fold
// ends all of them; on AVX-512 16 accumulators hide the latency of the multiply-add.
constexpr int kTileRows = kLanes >= 16 ? 4 : (kLanes >= 4 ? 2 : 1);
constexpr int kTileCols = static_cast<int>(kLanes) / kTileRows;
// Rows of b worked on before a advances: what fits beside a tile of a in a first-level cache.
constexpr std::int64_t kPanelFloats = 6 * 1024;

// One tile of outputs (rows x cols of them exist). A row or column past the edge repeats the last.
template <int R, int C>
HWY_INLINE void tile_nt(std::int64_t rows, std::int64_t cols, std::int64_t k, const float* a,
                        std::int64_t lda, const float* b, std::int64_t ldb, const float* bias,
                        float* out, std::int64_t ldout) {
  const float* a_row[R];
  const float* b_row[C];
  for (int r = 0; r < R; ++r) a_row[r] = a + (r < rows ? r : rows - 1) * lda;
  for (int c = 0; c < C; ++c) b_row[c] = b + (c < cols ? c : cols - 1) * ldb;
  HWY_ALIGN float sums[kLanes];
  hn::Store(block_sums<R, C>(k, a_row, b_row), FloatTag(), sums);
  if (rows >= R && cols >= C && bias == nullptr) {
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) out[r * ldout + c] = sums[r * C + c];
    }
    return;
  }
  for (int r = 0; r < R && r < rows; ++r) {
    for (int c = 0; c < C && c < cols; ++c) {
      out[r * ldout + c] = sums[r * C + c] + (bias != nullptr ? bias[c] : 0.0f);
    }
  }
}

void matmul_nt_target(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                      std::int64_t lda, const float* b, std::int64_t ldb, const float* bias,
                      float* out, std::int64_t ldout) {
  std::int64_t panel = k > 0 ? kPanelFloats / k : n;
  panel = panel < kLanes ? kLanes : panel / kLanes * kLanes;
  for (std::int64_t j0 = 0; j0 < n; j0 += panel) {
    const std::int64_t j1 = j0 + panel < n ? j0 + panel : n;
    std::int64_t i = 0;
    for (; i + kTileRows <= m; i += kTileRows) {
      for (std::int64_t j = j0; j < j1; j += kTileCols) {
        tile_nt<kTileRows, kTileCols>(kTileRows, j1 - j, k, a + i * lda, lda, b + j * ldb, ldb,
                                      bias != nullptr ? bias + j : nullptr, out + i * ldout + j,
                                      ldout);
      }
    }
    for (; i < m; ++i) {
      for (std::int64_t j = j0; j < j1; j += kLanes) {
        tile_nt<1, static_cast<int>(kLanes)>(1, j1 - j, k, a + i * lda, lda, b + j * ldb, ldb,
                                             bias != nullptr ? bias + j : nullptr,
                                             out + i * ldout + j, ldout);
      }
    }
  }
}

constexpr int kNnRows = 4;
constexpr int kNnVectors = kLanes >= 16 ? 4 : 2;
// Steps of k between two visits of the accumulators to memory: a panel of b stays in the cache.
// Storing and reloading an accumulator changes no bit.
constexpr std::int64_t kNnDepth = 128;

// R rows x N vectors of outputs, the last vector `last` (<= kLanes) floats wide.
template <int R, int N>
HWY_INLINE void tile_nn(std::int64_t last, std::int64_t k, const float* a, std::int64_t a_row,
                        std::int64_t a_col, const float* b, std::int64_t ldb, float* out,
                        std::int64_t ldout, bool accumulate) {
  const FloatTag d;
  Floats acc[R][N];
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int v = 0; v < N; ++v) {
      acc[r][v] = !accumulate ? hn::Zero(d)
                  : v + 1 < N ? hn::LoadU(d, out + r * ldout + v * kLanes)
                              : load_tail(out + r * ldout + v * kLanes, last);
    }
  }
  const bool whole = last >= kLanes;
  for (std::int64_t i = 0; i < k; ++i) {
    Floats y[N];
    HWY_UNROLL(4)
    for (int v = 0; v + 1 < N; ++v) y[v] = hn::LoadU(d, b + i * ldb + v * kLanes);
    const float* end = b + i * ldb + (N - 1) * kLanes;
    y[N - 1] = whole ? hn::LoadU(d, end) : load_tail(end, last);
    HWY_UNROLL(4)
    for (int r = 0; r < R; ++r) {
      const Floats x = hn::Set(d, a[r * a_row + i * a_col]);
      HWY_UNROLL(4)
      for (int v = 0; v < N; ++v) acc[r][v] = fused_multiply_add(d, x, y[v], acc[r][v]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(4)
    for (int v = 0; v + 1 < N; ++v) hn::StoreU(acc[r][v], d, out + r * ldout + v * kLanes);
    store_tail(acc[r][N - 1], out + r * ldout + (N - 1) * kLanes, last);
  }
}

// All rows of a stripe of N vectors.
template <int N>
HWY_INLINE void stripe_nn(std::int64_t m, std::int64_t last, std::int64_t k, const float* a,
                          std::int64_t a_row, std::int64_t a_col, const float* b, std::int64_t ldb,
                          float* out, std::int64_t ldout, bool accumulate) {
  std::int64_t i = 0;
  for (; i + kNnRows <= m; i += kNnRows) {
    tile_nn<kNnRows, N>(last, k, a + i * a_row, a_row, a_col, b, ldb, out + i * ldout, ldout,
                        accumulate);
  }
  for (; i < m; ++i) {
    tile_nn<1, N>(last, k, a + i * a_row, a_row, a_col, b, ldb, out + i * ldout, ldout, accumulate);
  }
}

void matmul_nn_target(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                      std::int64_t a_row, std::int64_t a_col, const float* b, std::int64_t ldb,
                      float* out, std::int64_t ldout, bool accumulate) {
  std::int64_t k0 = 0;
  do {  // at least once: k = 0 still writes zeros
    const std::int64_t depth = k - k0 < kNnDepth ? k - k0 : kNnDepth;
    const float* a_panel = a + k0 * a_col;
    const float* b_panel = b + k0 * ldb;
    const bool add = accumulate || k0 > 0;
    std::int64_t j = 0;
    for (; j + kNnVectors * kLanes <= n; j += kNnVectors * kLanes) {
      stripe_nn<kNnVectors>(m, kLanes, depth, a_panel, a_row, a_col, b_panel + j, ldb, out + j,
                            ldout, add);
    }
    for (; j < n; j += kLanes) {
      stripe_nn<1>(m, n - j, depth, a_panel, a_row, a_col, b_panel + j, ldb, out + j, ldout, add);
    }
    k0 += depth;
  } while (k0 < k);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(matmul_nt_target);
HWY_EXPORT(matmul_nn_target);

void matmul_nt(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
               const float* b, std::int64_t ldb, const float* bias, float* out,
               std::int64_t ldout) {
  HWY_DYNAMIC_DISPATCH(matmul_nt_target)(m, n, k, a, lda, b, ldb, bias, out, ldout);
}

void matmul_nn(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row,
               std::int64_t a_col, const float* b, std::int64_t ldb, float* out, std::int64_t ldout,
               bool accumulate) {
  HWY_DYNAMIC_DISPATCH(matmul_nn_target)(m, n, k, a, a_row, a_col, b, ldb, out, ldout, accumulate);
}

}  // namespace perennial::kernels
#endif
