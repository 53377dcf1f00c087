// SPDX-License-Identifier: Apache-2.0
// What one thread of the expert kernels does: its part of a dot product in 16 virtual lanes, and
// its columns of a sum of rows. The orders of addition are those of the CPU kernels (experts.h), so
// the bits are, too.
#pragma once

#include <cmath>
#include <cstdint>

#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/host_device.h"

namespace perennial::kernels::cuda {

// Threads that share a dot product: thread q has virtual lanes 4 q .. 4 q + 3.
constexpr int kDotThreads = 4;
constexpr int kLanesEach = 4;

// Elements of W in 16 bytes, and in a block of the 16 lanes.
template <class W>
constexpr int kVector = 16 / static_cast<int>(sizeof(W));
template <class W>
constexpr int kLaneBlock = kDotThreads* kVector<W>;

PERENNIAL_HOST_DEVICE inline float value_of(float weight) { return weight; }
PERENNIAL_HOST_DEVICE inline float value_of(BFloat16 weight) { return to_float(weight); }

// 16 bytes of weights, and the floats beside them.
template <class W>
struct alignas(16) Packed {
  W at[kVector<W>];
};

// kVector elements from p. kWide: p is 16-byte aligned; read in one access.
template <class W, bool kWide>
PERENNIAL_HOST_DEVICE inline Packed<W> load_packed(const W* p) {
  if constexpr (kWide) {
#ifdef __CUDA_ARCH__
    return __builtin_bit_cast(Packed<W>, __ldg(reinterpret_cast<const uint4*>(p)));
#else
    return *reinterpret_cast<const Packed<W>*>(p);
#endif
  } else {
    Packed<W> out;
    for (int i = 0; i < kVector<W>; ++i) out.at[i] = p[i];
    return out;
  }
}
// The first `count` of them (any count, also below 0), zeros after.
template <class W>
PERENNIAL_HOST_DEVICE inline Packed<W> load_tail(const W* p, std::int64_t count) {
  Packed<W> out;
  for (int i = 0; i < kVector<W>; ++i) out.at[i] = i < count ? p[i] : W{};
  return out;
}

// Floats that go with the elements of one Packed<W>.
template <class W>
struct Factors {
  float at[kVector<W>];
};
template <class W, bool kWide>
PERENNIAL_HOST_DEVICE inline Factors<W> load_factors(const float* p) {
  Factors<W> out;
  for (int part = 0; part < kVector<W> / 4; ++part) {
    const Packed<float> four = load_packed<float, kWide>(p + part * 4);
    for (int i = 0; i < 4; ++i) out.at[part * 4 + i] = four.at[i];
  }
  return out;
}
template <class W>
PERENNIAL_HOST_DEVICE inline Factors<W> load_factors_tail(const float* p, std::int64_t count) {
  Factors<W> out;
  for (int i = 0; i < kVector<W>; ++i) out.at[i] = i < count ? p[i] : 0.0f;
  return out;
}

// lane l of the thread's four: its kVector / 4 neighbours, ascending.
template <class W>
PERENNIAL_HOST_DEVICE inline void add_products(const Factors<W>& x, const Packed<W>& w,
                                               float (&lane)[kLanesEach]) {
  constexpr int kPerLane = kVector<W> / kLanesEach;
  for (int l = 0; l < kLanesEach; ++l) {
    for (int i = l * kPerLane; i < (l + 1) * kPerLane; ++i) {
      lane[l] = std::fma(x.at[i], value_of(w.at[i]), lane[l]);
    }
  }
}

// Thread q's lanes of the dot products of x with kRows rows of n elements each.
template <class W, bool kWide, int kRows>
PERENNIAL_HOST_DEVICE inline void dot_lanes(int q, std::int64_t n, const float* x,
                                            const W* const (&rows)[kRows],
                                            float (&lanes)[kRows][kLanesEach]) {
  for (int r = 0; r < kRows; ++r) {
    for (int l = 0; l < kLanesEach; ++l) lanes[r][l] = 0;
  }
  std::int64_t at = q * kVector<W>, base = 0;
#ifdef __CUDA_ARCH__
#pragma unroll 2
#endif
  for (; base + kLaneBlock<W> <= n; base += kLaneBlock<W>, at += kLaneBlock<W>) {
    Packed<W> weights[kRows];
    for (int r = 0; r < kRows; ++r) weights[r] = load_packed<W, kWide>(rows[r] + at);
    const Factors<W> factors = load_factors<W, kWide>(x + at);
    for (int r = 0; r < kRows; ++r) add_products<W>(factors, weights[r], lanes[r]);
  }
  if (base < n) {
    const std::int64_t left = n - at;
    const Factors<W> factors = load_factors_tail<W>(x + at, left);
    for (int r = 0; r < kRows; ++r) {
      add_products<W>(factors, load_tail<W>(rows[r] + at, left), lanes[r]);
    }
  }
}

// The tree of lanes, with what the other threads of the four hold: get(value, distance) is that of
// thread q ^ distance. Only thread 0's result is the dot product.
template <class Get>
PERENNIAL_HOST_DEVICE inline float fold_lanes(float (&lane)[kLanesEach], Get get) {
  for (int l = 0; l < kLanesEach; ++l) lane[l] += get(lane[l], 2);  // lanes l += l + 8
  for (int l = 0; l < kLanesEach; ++l) lane[l] += get(lane[l], 1);  // l += l + 4
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

// A term of a sum of rows. (Without initial values, because it lies in shared memory.)
template <class W>
struct Term {
  const W* row;
  float factor;
};

// sum[i] += factor * row[at + i] over the terms, ascending; i < count, which is kVector if kWide.
template <class W, bool kWide>
PERENNIAL_HOST_DEVICE inline void add_rows(const Term<W>* terms, int n, std::int64_t at,
                                           std::int64_t count, float (&sum)[kVector<W>]) {
  constexpr int kAhead = 8;  // rows under way at once
  int t = 0;
  if constexpr (kWide) {
    for (; t + kAhead <= n; t += kAhead) {
      Packed<W> weights[kAhead];
      for (int a = 0; a < kAhead; ++a) weights[a] = load_packed<W, true>(terms[t + a].row + at);
      for (int a = 0; a < kAhead; ++a) {
        for (int i = 0; i < kVector<W>; ++i) {
          sum[i] = std::fma(terms[t + a].factor, value_of(weights[a].at[i]), sum[i]);
        }
      }
    }
  }
  for (; t < n; ++t) {
    const Packed<W> weights =
        kWide ? load_packed<W, kWide>(terms[t].row + at) : load_tail<W>(terms[t].row + at, count);
    for (int i = 0; i < kVector<W>; ++i) {
      sum[i] = std::fma(terms[t].factor, value_of(weights.at[i]), sum[i]);
    }
  }
}

}  // namespace perennial::kernels::cuda
