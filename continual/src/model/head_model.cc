// SPDX-License-Identifier: Apache-2.0
// Fixed features and an analytic head.
#include "model/head_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <optional>
#include <utility>

#include "data/column_features.h"
#include "model/image_filters.h"
#include "perennial/core/analytic_head.h"
#include "perennial/core/names.h"

namespace perennial::continual {

namespace {

// Scores of classes are near 1 and 0; this makes probabilities of them. It changes no answer.
constexpr double kSharpness = 10;

// What the head reads: columns, or filters, a layer, or both.
struct HeadFeatures {
  std::optional<ColumnFeatures> columns;
  std::optional<ImageFilters> filters;
  std::optional<ExpertLayers> experts;
};

class HeadModel : public Model {
 public:
  HeadModel(const RunConfig& config, HeadFeatures features, AnalyticHead head,
            const Placement& placement)
      : task_(config.task()),
        columns_(std::move(features.columns)),
        filters_(std::move(features.filters)),
        experts_(std::move(features.experts)),
        peer_(experts_ ? &experts_->get(std::string(kDefaultName)) : nullptr),
        head_(std::move(head)),
        device_(placement.device) {
    if (peer_ == nullptr) return;
    peer_->set_amp(config.train.amp);
    if (placement.place) placement.place(*peer_);
  }

  bool learns_by_gradient() const override { return false; }
  void observe(const torch::Tensor& x, const torch::Tensor& y) override {
    head_.observe(features_of(x), y);
  }
  torch::Tensor train_forward(const torch::Tensor& x) override {
    const torch::Tensor scores = head_.scores(features_of(x));
    return task_ == TaskKind::classification ? kSharpness * scores : scores;
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t>) override {
    const at::NoGradGuard no_grad;
    return {answers_of(task_, train_forward(x)),
            at::full({x.size(0)}, peer_ == nullptr ? -1 : 0, at::kLong)};
  }

  std::vector<std::pair<std::string, torch::Tensor>> trainable() override { return {}; }
  std::int64_t dense_parameters() const override {
    std::int64_t n = head_.features() * head_.classes();
    if (peer_ == nullptr) return n;
    for (const torch::Tensor& tensor : peer_->parameters()) n += tensor.numel();
    return n;
  }
  ExpertLayers* experts() override { return experts_ ? &*experts_ : nullptr; }
  torch::Tensor layer_inputs(const std::string&, const torch::Tensor& x) override {
    return x.to(device_);
  }

  void add_to_commit(storage::CommitRequest& request) override {
    if (experts_) experts_->add_to_commit(request);
    if (filters_) {
      DenseEntries::Offer offer = entries_.offer(request);
      filters_->offer(offer);
    }
    head_.add_to_commit(request);
  }
  void committed() override {
    entries_.committed();
    if (experts_) experts_->committed();
    head_.committed();
  }
  void commit_failed() override {
    entries_.commit_failed();
    if (experts_) experts_->commit_failed();
    head_.commit_failed();
  }

 private:
  // (B, M)
  torch::Tensor features_of(const torch::Tensor& x) {
    const at::NoGradGuard no_grad;
    if (columns_) return (*columns_)(x);
    if (peer_ == nullptr) return (*filters_)(x);
    peer_->train(false);
    const torch::Tensor pool = peer_->forward(x.to(device_), 0).to(at::kCPU);
    return filters_ ? at::cat({(*filters_)(x), pool}, 1) : pool;
  }

  TaskKind task_;
  std::optional<ColumnFeatures> columns_;
  std::optional<ImageFilters> filters_;
  std::optional<ExpertLayers> experts_;  // none for the head alone
  PeerImpl* peer_;                       // its layer
  AnalyticHead head_;
  at::Device device_;  // the layer's
  DenseEntries entries_;
};

// What would do nothing over columns.
void require_columns_alone(const RunConfig& config, std::int64_t budget_bytes) {
  const ModelOptions defaults, &model = config.model;
  const auto refuse = [](bool asked, const std::string& option) {
    if (!asked) return;
    throw InvalidOptions(
        "head analytic reads the columns of these data, which are no images, and " + option +
        " is read by head_inputs filters only: leave it out, or ask for these");
  };
  refuse(model.head_filters != defaults.head_filters, "head_filters");
  refuse(model.head_filter_size != defaults.head_filter_size, "head_filter_size");
  refuse(model.head_grid != defaults.head_grid, "head_grid");
  refuse(model.head_pool != defaults.head_pool, "head_pool");
  refuse(model.head_ridge != defaults.head_ridge, "head_ridge");
  refuse(config.train.amp != Amp::off, "amp");
  refuse(budget_bytes > 0, "budget_bytes");
}

}  // namespace

std::unique_ptr<Model> make_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader* store,
                                       std::int64_t budget_bytes, ImageShape image,
                                       const Placement& placement) {
  const ModelOptions& options = config.model;
  HeadFeatures inputs;
  if (options.head_inputs == HeadInputs::columns ||
      (options.head_inputs == HeadInputs::automatic && image.rows == 0)) {
    require_columns_alone(config, budget_bytes);
    inputs.columns.emplace(options, features);
    AnalyticHead head(inputs.columns->size(), classes, 0, inputs.columns->widths());
    return std::make_unique<HeadModel>(config, std::move(inputs), std::move(head), placement);
  }
  inputs.filters = ImageFilters::make(config, features, image);
  if (options.head_pool > 0) {
    inputs.experts.emplace(store, budget_bytes);
    inputs.experts->add(std::string(kDefaultName), options.layer(features, options.head_pool));
    inputs.experts->grow();
    inputs.experts->freeze();
  }
  AnalyticHead head((inputs.filters ? inputs.filters->size() : 0) + options.head_pool, classes,
                    options.head_ridge);
  return std::make_unique<HeadModel>(config, std::move(inputs), std::move(head), placement);
}

std::unique_ptr<Model> load_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader& store,
                                       std::int64_t budget_bytes, std::int64_t learnt_classes,
                                       const Placement& placement) {
  AnalyticHead head = AnalyticHead::load(store);
  HeadFeatures inputs;
  std::int64_t size = 0;
  if (!head.widths().empty()) {
    inputs.columns.emplace(config.model, features);
    size = inputs.columns->size();
  } else {
    inputs.filters = ImageFilters::load(config, features, store);
    if (config.model.head_pool > 0) inputs.experts = ExpertLayers::load(store, budget_bytes);
    size = (inputs.filters ? inputs.filters->size() : 0) + config.model.head_pool;
  }
  if (head.features() != size || head.classes() != learnt_classes) {
    throw DataError("the store's analytic head has another shape than its run");
  }
  if (classes > learnt_classes) head.add_classes(classes);
  return std::make_unique<HeadModel>(config, std::move(inputs), std::move(head), placement);
}

}  // namespace perennial::continual
