// SPDX-License-Identifier: Apache-2.0
// The obvious reference of every kernel: plain loops, double accumulation, templates over the value
// type so that gradients can be checked by central differences in double. Slow; the oracle of
// tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "perennial/kernels/experts.h"
#include "perennial/kernels/retrieve.h"

namespace perennial::kernels::reference {

template <class T>
struct Retrieved {
  std::int64_t id;
  std::int64_t row_index;  // into the row keys
  std::int64_t col_index;
  double score;
};

// Every visible pair scored and sorted in the order of retrieve.h; the first k.
// row_keys: (n_row, D), col_keys: (n_col, D) of one head; query: (2 D).
// Row and column scores are rounded to T before their sum is compared, as the fast paths' are.
template <class T>
std::vector<Retrieved<T>> retrieve(std::span<const T> query, std::span<const T> row_keys,
                                   std::span<const T> col_keys, std::int64_t sub_dim,
                                   std::span<const KeySegment> segments, std::int64_t k);

// Value and derivative in T precision.
template <class T>
T activate(Activation activation, T x);
template <class T>
T activate_derivative(Activation activation, T x);

template <class T>
std::vector<T> score(ScoreFunction function, std::span<const T> scores);
template <class T>
std::vector<T> score_backward(ScoreFunction function, std::span<const T> weights,
                              std::span<const T> dweights);

// One token: y (d_out) = sum over slots of g act(u.x) [w.x] v. experts[s] points at the record of
// slot s (ExpertLayout, in T).
template <class T>
std::vector<T> experts_forward(const ExpertLayout& layout, Activation activation,
                               std::span<const T* const> experts, std::span<const T> weights,
                               std::span<const T> x);

template <class T>
struct ExpertsBackward {
  std::vector<T> dx;                     // (d_in)
  std::vector<T> dweights;               // (S)
  std::vector<std::vector<T>> dexperts;  // (S)(stride): gradient of the record, per slot
};
template <class T>
ExpertsBackward<T> experts_backward(const ExpertLayout& layout, Activation activation,
                                    std::span<const T* const> experts, std::span<const T> weights,
                                    std::span<const T> x, std::span<const T> dy);

}  // namespace perennial::kernels::reference
