// SPDX-License-Identifier: Apache-2.0
// A head that is solved, not trained: ridge regression from streaming statistics.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "perennial/core/dense_entries.h"
#include "perennial/core/participant.h"
#include "perennial/storage/page_store.h"

namespace perennial {

// From features f: (M) to C classes, or C numbers: A = sum f f' (M, M) and B = sum f y' (M, C) in
// double, y one hot, or the numbers; the weights W = (A + ridge I)^-1 B by Cholesky. What it has
// learnt does not depend on the order of the classes but for rounding, so nothing is forgotten:
// Zhuang et al. 2022 (ACIL, arXiv 2205.14922), over a backbone trained on the first classes;
// McDonnell et al. 2023 (RanPAC, arXiv 2307.02251), over random projections of a pretrained one.
// Here f is what the caller gives, and nothing is pretrained. ridge 0: the strength is chosen
// whenever it is solved, by generalised cross validation from A, B and the number of inputs
// (nn/ridge.h), which costs a dozen times the solving. With `widths` it is chosen together with how
// many of the first features are used, one of the widths (nn/nested_ridge.h), at the cost of an
// eigendecomposition each; the others' weights are 0.
//
// A is kept as the blocks of its lower triangle, each an entry of the store. An input's scores do
// not depend on the batch around it; the statistics depend, in rounding, on the batches observed
// and on the thread count. Single-threaded; memory about 4 M^2 bytes, after a commit 8 M^2, in
// solve() 16 M^2 more, with ridge 0 24 M^2.
class AnalyticHead : public Participant {
 public:
  // Throws InvalidOptions unless features, classes >= 1 and ridge >= 0; with widths, unless these
  // ascend from 1 or more to `features`, and ridge is 0.
  AnalyticHead(std::int64_t features, std::int64_t classes, double ridge,
               std::vector<std::int64_t> widths = {});
  // As the store's current state has it. Throws StorageError, DataError.
  static AnalyticHead load(const storage::PageReader& store);

  std::int64_t features() const { return features_; }
  std::int64_t classes() const { return classes_; }
  // What it chooses a width from; empty where it uses all features.
  const std::vector<std::int64_t>& widths() const { return widths_; }
  // From now on there are so many classes; the new ones have been observed in no input.
  void add_classes(std::int64_t classes);
  // Adds features f: (B, M) float32 with their classes y: (B) int64, or their numbers y: (B, C)
  // float32. Throws DataError for what is not finite. Cost: O(B M^2).
  void observe(const at::Tensor& f, const at::Tensor& y);
  // Solves for the weights when statistics changed since the last time. Cost: O(M^3).
  void solve();
  // The ridge strength that the weights were last solved with; 0 before that at ridge 0.
  double ridge() const { return chosen_; }
  // How many of the first features the weights were last solved for.
  std::int64_t width() const { return width_; }
  // (B, C), near 1 for the class of an input, or near its numbers; solves first if needed. 0 before
  // anything was observed.
  at::Tensor scores(const at::Tensor& f);

  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }

 private:
  // Block (i, j), j <= i, of A.
  at::Tensor& block(std::int64_t i, std::int64_t j) {
    return blocks_[static_cast<std::size_t>(i * (i + 1) / 2 + j)];
  }
  std::int64_t block_count() const;
  // Rows [first, second) of block row i.
  std::pair<std::int64_t, std::int64_t> rows_of(std::int64_t i) const;

  std::int64_t features_;
  std::int64_t classes_;
  double ridge_;
  std::vector<std::int64_t> widths_;
  double chosen_;
  std::int64_t width_;
  std::int64_t count_ = 0;          // inputs observed
  double excess_ = 0;               // sum y.y - inputs: of classes 0
  std::vector<at::Tensor> blocks_;  // float64
  at::Tensor b_;                    // (M, C) float64
  at::Tensor weights_;              // (C, M) float32, solved; undefined when out of date
  DenseEntries entries_;
};

}  // namespace perennial
