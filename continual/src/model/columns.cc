// SPDX-License-Identifier: Apache-2.0
// The multilayer perceptron that grows by columns.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <utility>

#include "model/dense_layers.h"
#include "model/mlp.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

// Rusu et al. 2016, "Progressive Neural Networks" (arXiv 1606.04671), eq. 1: h_i^(k) =
// f(W_i^(k) h_(i-1)^(k) + sum_(j<k) U_i^(k:j) h_(i-1)^(j)), f = ReLU, for k columns of d hidden
// layers and an output layer each. [W_i^(k) U_i^(k:0) ...] is one dense layer over the columns'
// activations side by side, so its initial values have the scale of one. The lateral connections
// are linear, without the paper's adapters (eq. 2). Dropout is of the newest column's own units.
class Columns : public Model {
 public:
  Columns(const RunConfig& config, DenseInputs inputs, std::int64_t classes,
          const Placement& placement)
      : task_(config.task()),
        options_(config.model),
        inputs_(std::move(inputs)),
        classes_(classes),
        layers_({placement.device, config.train.amp}),
        dropout_(config.model, static_cast<std::size_t>(config.model.depth)) {
    add_column();
  }
  void load(const storage::PageReader& store) {
    const std::vector<std::string> names = store.dense_names();
    const auto stored = [&](std::int64_t column) {
      return std::find(names.begin(), names.end(),
                       "dense/" + layer_name(column, options_.depth) + "/weight") != names.end();
    };
    while (stored(columns_)) add_column();
    layers_.load(store, entries_);
    dropout_.load(store);
  }

  void add_column() override {
    layers_.freeze(layers_.size());
    const std::int64_t beside = options_.hidden * (columns_ + 1);
    for (std::int64_t i = 0; i <= options_.depth; ++i) {
      layers_.add(layer_name(columns_, i), i == 0 ? inputs_.size() : beside,
                  i == options_.depth ? classes_ : options_.hidden, options_.seed);
    }
    ++columns_;
  }
  std::int64_t newest_generation() override { return columns_ - 1; }

  torch::Tensor train_forward(const torch::Tensor& x) override {
    if (dropout_.on()) dropout_.begin();
    return forward(x, columns_ - 1, dropout_.on());
  }
  torch::Tensor test_forward(const torch::Tensor& x) override {
    return forward(x, columns_ - 1, false);
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t> generation) override {
    const at::NoGradGuard no_grad;
    const std::int64_t column = generation ? std::int64_t{*generation} : columns_ - 1;
    if (column >= columns_) {
      throw Error("column " + std::to_string(column) + " is asked for; there are " +
                  std::to_string(columns_));
    }
    return {answers_of(task_, forward(x, column, false)), at::full({x.size(0)}, column, at::kLong)};
  }

  std::vector<std::pair<std::string, torch::Tensor>> trainable() override {
    return layers_.tensors(first_of(columns_ - 1));
  }
  std::int64_t dense_parameters() const override { return layers_.parameters(); }
  void add_to_commit(storage::CommitRequest& request) override {
    DenseEntries::Offer offer = entries_.offer(request);
    inputs_.offer(offer);
    layers_.offer(offer);
    dropout_.offer(offer);
  }
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }

 private:
  std::string layer_name(std::int64_t column, std::int64_t layer) const {
    return "column" + std::to_string(column) + "/" +
           (layer == options_.depth ? "output" : "hidden" + std::to_string(layer));
  }
  std::size_t first_of(std::int64_t column) const {
    return static_cast<std::size_t>(column * (options_.depth + 1));
  }
  const Linear& layer(std::int64_t column, std::int64_t number) const {
    return layers_[first_of(column) + static_cast<std::size_t>(number)];
  }

  // Outputs (B, C) of a column. Those before it pass no gradient.
  torch::Tensor forward(const torch::Tensor& data, std::int64_t column, bool drop) const {
    const torch::Tensor x = layers_.inputs(inputs_(data));
    std::vector<torch::Tensor> before(static_cast<std::size_t>(column) + 1, x);
    for (std::int64_t i = 0; i < options_.depth; ++i) {
      std::vector<torch::Tensor> h;
      for (std::int64_t c = 0; c <= column; ++c) {
        const at::AutoGradMode mode(c == column && at::GradMode::is_enabled());
        const torch::Tensor in =
            i == 0 ? x : at::cat(at::TensorList(before.data(), static_cast<std::size_t>(c) + 1), 1);
        h.push_back(layer(c, i)(in).relu());
      }
      if (drop) h.back() = dropout_(h.back(), static_cast<std::size_t>(i));
      before = std::move(h);
    }
    return layer(column, options_.depth)(options_.depth == 0 ? x : at::cat(before, 1)).to(at::kCPU);
  }

  TaskKind task_;
  ModelOptions options_;
  DenseInputs inputs_;
  std::int64_t classes_;
  DenseLayers layers_;
  UnitDropout dropout_;
  std::int64_t columns_ = 0;
  DenseEntries entries_;
};

}  // namespace

std::unique_ptr<Model> make_columns(const RunConfig& config, DenseInputs inputs,
                                    std::int64_t classes, const Placement& placement) {
  return std::make_unique<Columns>(config, std::move(inputs), classes, placement);
}

std::unique_ptr<Model> load_columns(const RunConfig& config, DenseInputs inputs,
                                    std::int64_t classes, const storage::PageReader& store,
                                    const Placement& placement) {
  auto model = std::make_unique<Columns>(config, std::move(inputs), classes, placement);
  model->load(store);
  return model;
}

}  // namespace perennial::continual
