// SPDX-License-Identifier: Apache-2.0
// The multilayer perceptron.
#include "model/mlp.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>

#include <utility>

#include "model/dense_layers.h"

namespace perennial::continual {

DenseInputs DenseInputs::make(const RunConfig& config, std::int64_t features, ImageShape image) {
  DenseInputs inputs(features);
  if (config.model.inputs == InputKind::filters) {
    inputs.filters_ = ImageFilters::make(config, features, image);
  }
  return inputs;
}

DenseInputs DenseInputs::load(const RunConfig& config, std::int64_t features,
                              const storage::PageReader& store) {
  DenseInputs inputs(features);
  if (config.model.inputs == InputKind::filters) {
    inputs.filters_ = ImageFilters::load(config, features, store);
  }
  return inputs;
}

namespace {

class Mlp : public Model {
 public:
  Mlp(const RunConfig& config, DenseInputs inputs, std::int64_t classes, const Placement& placement)
      : task_(config.task()),
        inputs_(std::move(inputs)),
        layers_({placement.device, config.train.amp}),
        dropout_(config.model, static_cast<std::size_t>(config.model.depth)) {
    const ModelOptions& options = config.model;
    std::int64_t in = inputs_.size();
    for (std::int64_t i = 0; i < options.depth; ++i) {
      layers_.add("hidden" + std::to_string(i), in, options.hidden, options.seed);
      in = options.hidden;
    }
    layers_.add("output", in, classes, options.seed);
  }
  void load(const storage::PageReader& store, std::int64_t outputs) {
    layers_.load(store, entries_, outputs);
    dropout_.load(store);
  }

  torch::Tensor train_forward(const torch::Tensor& x) override {
    if (!dropout_.on()) return test_forward(x);
    dropout_.begin();
    torch::Tensor h = inputs_of(x);
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) h = dropout_(layers_[i](h).relu(), i);
    return layers_[layers_.size() - 1](h).to(at::kCPU);
  }
  torch::Tensor test_forward(const torch::Tensor& x) override {
    torch::Tensor h = inputs_of(x);
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) h = layers_[i](h).relu();
    return layers_[layers_.size() - 1](h).to(at::kCPU);
  }
  torch::Tensor traced_forward(const torch::Tensor& x, std::vector<LayerUse>& uses) override {
    torch::Tensor h = inputs_of(x);
    uses.clear();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const torch::Tensor output = layers_[i](h);
      uses.push_back({2 * i, 2 * i + 1, h, output});
      h = output.relu();
    }
    return uses.back().output.to(at::kCPU);
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t>) override {
    const at::NoGradGuard no_grad;
    return {answers_of(task_, test_forward(x)), at::full({x.size(0)}, -1, at::kLong)};
  }
  std::vector<std::pair<std::string, torch::Tensor>> trainable() override {
    return layers_.tensors();
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
  torch::Tensor inputs_of(const torch::Tensor& x) const { return layers_.inputs(inputs_(x)); }

  TaskKind task_;
  DenseInputs inputs_;
  DenseLayers layers_;
  UnitDropout dropout_;
  DenseEntries entries_;
};

}  // namespace

std::unique_ptr<Model> make_mlp(const RunConfig& config, DenseInputs inputs, std::int64_t classes,
                                const Placement& placement) {
  return std::make_unique<Mlp>(config, std::move(inputs), classes, placement);
}

std::unique_ptr<Model> load_mlp(const RunConfig& config, DenseInputs inputs, std::int64_t classes,
                                const storage::PageReader& store, std::int64_t learnt_classes,
                                const Placement& placement) {
  auto model = std::make_unique<Mlp>(config, std::move(inputs), classes, placement);
  model->load(store, learnt_classes);
  return model;
}

}  // namespace perennial::continual
