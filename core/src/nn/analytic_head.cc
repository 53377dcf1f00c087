// SPDX-License-Identifier: Apache-2.0
// The analytic head.
#include "perennial/core/analytic_head.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <functional>
#include <string>
#include <utility>

#include "nn/batch_invariant.h"
#include "nn/nested_ridge.h"
#include "nn/ridge.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"
#include "perennial/core/options.h"
#include "record.h"

namespace perennial {

namespace json = boost::json;

namespace {

constexpr const char* kHeadRecord = "head";
constexpr const char* kTargets = "head/b";
// Rows of a block of A: 8 MiB each, large enough for a matrix product's best speed.
constexpr std::int64_t kBlock = 1024;

std::string entry(std::int64_t i, std::int64_t j) {
  std::string name = "head/a/";
  name.append(std::to_string(i)).append("/").append(std::to_string(j));
  return name;
}

}  // namespace

AnalyticHead::AnalyticHead(std::int64_t features, std::int64_t classes, double ridge,
                           std::vector<std::int64_t> widths)
    : features_(features),
      classes_(classes),
      ridge_(ridge),
      widths_(std::move(widths)),
      chosen_(ridge),
      width_(features) {
  if (features_ < 1 || classes_ < 1 || !(ridge_ >= 0)) {
    throw InvalidOptions("the analytic head has " + std::to_string(features_) + " features, " +
                         std::to_string(classes_) + " classes and ridge " + std::to_string(ridge_) +
                         "; the first two must be above 0, and ridge not below it");
  }
  if (!widths_.empty() && (widths_.front() < 1 || widths_.back() != features_ || ridge_ > 0 ||
                           std::adjacent_find(widths_.begin(), widths_.end(),
                                              std::greater_equal<>()) != widths_.end())) {
    throw InvalidOptions("the widths of an analytic head ascend from 1 or more to its " +
                         std::to_string(features_) + " features, and its ridge is 0");
  }
  for (std::int64_t i = 0; i < block_count(); ++i) {
    const auto [row, row_end] = rows_of(i);
    for (std::int64_t j = 0; j <= i; ++j) {
      const auto [col, col_end] = rows_of(j);
      blocks_.push_back(at::zeros({row_end - row, col_end - col}, at::kDouble));
    }
  }
  b_ = at::zeros({features_, classes_}, at::kDouble);
}

std::int64_t AnalyticHead::block_count() const { return (features_ + kBlock - 1) / kBlock; }

std::pair<std::int64_t, std::int64_t> AnalyticHead::rows_of(std::int64_t i) const {
  return {i * kBlock, std::min((i + 1) * kBlock, features_)};
}

void AnalyticHead::add_classes(std::int64_t classes) {
  if (classes < classes_) {
    throw Error("an analytic head of " + std::to_string(classes_) + " classes cannot have " +
                std::to_string(classes));
  }
  b_ = at::cat({b_, at::zeros({features_, classes - classes_}, at::kDouble)}, 1);
  classes_ = classes;
  weights_ = at::Tensor();
}

void AnalyticHead::observe(const at::Tensor& f, const at::Tensor& y) {
  const at::NoGradGuard no_grad;
  const bool numbers = y.dim() == 2 && y.size(1) == classes_;
  if (f.dim() != 2 || f.size(1) != features_ || (y.dim() != 1 && !numbers) ||
      y.size(0) != f.size(0)) {
    throw Error("the analytic head expects features (B, " + std::to_string(features_) +
                ") and classes (B) or numbers (B, " + std::to_string(classes_) + "), not " +
                c10::str(f.sizes()) + " and " + c10::str(y.sizes()));
  }
  const at::Tensor targets = (numbers ? y : at::one_hot(y, classes_)).to(at::kDouble);
  const double excess =
      numbers ? targets.square().sum().item<double>() - static_cast<double>(y.size(0)) : 0;
  if (!std::isfinite(excess)) throw DataError("a target is not finite");
  const at::Tensor rows = f.to(at::kDouble);
  if (!std::isfinite(rows.sum().item<double>())) throw DataError("an input is not finite");
  for (std::int64_t i = 0; i < block_count(); ++i) {
    const auto [row, row_end] = rows_of(i);
    const at::Tensor left = rows.slice(1, row, row_end).t();
    for (std::int64_t j = 0; j <= i; ++j) {
      const auto [col, col_end] = rows_of(j);
      block(i, j).addmm_(left, rows.slice(1, col, col_end));
    }
  }
  b_.addmm_(rows.t(), targets);
  count_ += y.size(0);
  excess_ += excess;
  weights_ = at::Tensor();
}

void AnalyticHead::solve() {
  if (weights_.defined()) return;
  const at::NoGradGuard no_grad;
  at::Tensor a = at::zeros({features_, features_}, at::kDouble);
  for (std::int64_t i = 0; i < block_count(); ++i) {
    const auto [row, row_end] = rows_of(i);
    for (std::int64_t j = 0; j <= i; ++j) {
      const auto [col, col_end] = rows_of(j);
      a.slice(0, row, row_end).slice(1, col, col_end).copy_(block(i, j));
    }
  }
  if (!widths_.empty()) {
    const NestedRidge best = nested_ridge({a, b_, count_, excess_}, widths_);
    width_ = best.width;
    chosen_ = best.ridge;
    weights_ = at::zeros({classes_, features_});
    weights_.slice(1, 0, width_).copy_(best.weights.t());
    return;
  }
  chosen_ = ridge_ > 0 ? ridge_ : choose_ridge({a, b_, count_, excess_});
  weights_ = ridge_weights(a, chosen_, b_);  // reads the lower triangle only
}

at::Tensor AnalyticHead::scores(const at::Tensor& f) {
  const at::NoGradGuard no_grad;
  if (f.dim() != 2 || f.size(1) != features_ || f.scalar_type() != at::kFloat) {
    throw Error("the analytic head expects float32 (B, " + std::to_string(features_) + "), not " +
                c10::str(f.sizes()));
  }
  solve();
  return rows_times(f.contiguous(), weights_);
}

void AnalyticHead::add_to_commit(storage::CommitRequest& request) {
  json::object record{{"features", features_},
                      {"classes", classes_},
                      {"ridge", options_detail::exact_number(ridge_)}};
  if (ridge_ == 0) record["count"] = count_;
  if (ridge_ == 0 && excess_ != 0) record["excess"] = options_detail::exact_number(excess_);
  if (!widths_.empty()) record["widths"] = json::value_from(widths_);
  DenseEntries::Offer offer = entries_.offer(request);
  offer.bytes(kHeadRecord, bytes_from(record_text(record)));
  for (std::int64_t i = 0; i < block_count(); ++i) {
    for (std::int64_t j = 0; j <= i; ++j) offer.tensor(entry(i, j), block(i, j));
  }
  offer.tensor(kTargets, b_);
}

AnalyticHead AnalyticHead::load(const storage::PageReader& store) {
  const storage::Bytes bytes = value_or_throw(store.read_dense(kHeadRecord));
  const json::object record = parse_record(kHeadRecord, bytes);
  AnalyticHead head = from_record(kHeadRecord, [&] {
    std::vector<std::int64_t> widths;
    if (const json::value* entry = record.if_contains("widths")) {
      widths = json::value_to<std::vector<std::int64_t>>(*entry);
    }
    AnalyticHead made(json::value_to<std::int64_t>(record.at("features")),
                      json::value_to<std::int64_t>(record.at("classes")),
                      options_detail::to_number("ridge", record.at("ridge")), std::move(widths));
    if (made.ridge_ == 0) {
      made.count_ = record.at("count").as_int64();
      if (const json::value* excess = record.if_contains("excess")) {
        made.excess_ = options_detail::to_number("excess", *excess);
      }
    }
    return made;
  });
  const auto read = [&](const std::string& name, at::Tensor& tensor) {
    tensor = tensor_like(store, name, tensor, "head");
    head.entries_.stored(name, tensor);
  };
  for (std::int64_t i = 0; i < head.block_count(); ++i) {
    for (std::int64_t j = 0; j <= i; ++j) read(entry(i, j), head.block(i, j));
  }
  read(kTargets, head.b_);
  head.entries_.stored(kHeadRecord, bytes);
  return head;
}

}  // namespace perennial
