// SPDX-License-Identifier: Apache-2.0
// CUDA's warp matrix functions on the host, for bf16 products with fp32 sums: every lane must come,
// lane 0 does the work. Sums ascend; a device's order is its own.
#pragma once

#include "cuda_bf16.h"
#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  static constexpr int kRows = std::is_same_v<Use, matrix_b> ? K : M;
  static constexpr int kCols = std::is_same_v<Use, matrix_a> ? K : N;
  T at[kRows][kCols];  // lane 0's counts
};

// Lane 0 of a warp whose lanes have all come.
inline bool works() {
  emulator::wait_for_warp();
  return emulator::lane() == 0;
}

template <class Fragment, class T>
void fill_fragment(Fragment& fragment, T value) {
  if (!works()) return;
  for (auto& row : fragment.at) {
    for (auto& element : row) element = value;
  }
}
template <class Use, int M, int N, int K, class T, class Layout>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& out, const T* from, unsigned stride) {
  using Fragment = fragment<Use, M, N, K, T, Layout>;
  if (reinterpret_cast<std::uintptr_t>(from) % 32 != 0 || stride * sizeof(T) % 16 != 0) {
    emulator::fail("a matrix fragment is not aligned");
  }
  if (!works()) return;
  for (int r = 0; r < Fragment::kRows; ++r) {
    for (int c = 0; c < Fragment::kCols; ++c) {
      out.at[r][c] =
          std::is_same_v<Layout, row_major> ? from[r * stride + c] : from[c * stride + r];
    }
  }
}
template <int M, int N, int K, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& out,
              const fragment<matrix_a, M, N, K, __nv_bfloat16, LayoutA>& a,
              const fragment<matrix_b, M, N, K, __nv_bfloat16, LayoutB>& b,
              const fragment<accumulator, M, N, K, float>& c) {
  if (!works()) return;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      float sum = c.at[m][n];
      for (int k = 0; k < K; ++k) {
        sum += __bfloat162float(a.at[m][k]) * __bfloat162float(b.at[k][n]);
      }
      out.at[m][n] = sum;
    }
  }
}
template <int M, int N, int K>
void store_matrix_sync(float* to, const fragment<accumulator, M, N, K, float>& from,
                       unsigned stride, layout_t layout) {
  if (reinterpret_cast<std::uintptr_t>(to) % 32 != 0 || stride * sizeof(float) % 16 != 0) {
    emulator::fail("a matrix fragment is not aligned");
  }
  if (!works()) return;
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      to[layout == mem_row_major ? m * stride + n : n * stride + m] = from.at[m][n];
    }
  }
}

}  // namespace nvcuda::wmma
