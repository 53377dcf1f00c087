// SPDX-License-Identifier: Apache-2.0
// Fixed features and an analytic head.
#include "head_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <optional>
#include <utility>

#include "image_filters.h"
#include "perennial/core/analytic_head.h"

namespace perennial::continual {

namespace {

// Scores are near 1 and 0; this makes probabilities of them. It changes no answer.
constexpr double kSharpness = 10;

class HeadModel : public Model {
 public:
  HeadModel(const RunConfig& config, std::optional<ImageFilters> filters,
            std::shared_ptr<PeerImpl> peer, AnalyticHead head, const Placement& placement)
      : filters_(std::move(filters)),
        peer_(std::move(peer)),
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
    return kSharpness * head_.scores(features_of(x));
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t>) override {
    const at::NoGradGuard no_grad;
    return {train_forward(x).softmax(1),
            at::full({x.size(0)}, peer_ == nullptr ? -1 : 0, at::kLong)};
  }

  std::vector<std::pair<std::string, torch::Tensor>> trainable() override { return {}; }
  std::int64_t dense_parameters() const override {
    std::int64_t n = head_.features() * head_.classes();
    if (peer_ == nullptr) return n;
    for (const torch::Tensor& tensor : peer_->parameters()) n += tensor.numel();
    return n;
  }
  torch::Tensor pool_inputs(const torch::Tensor& x) override { return x.to(device_); }
  PeerImpl* peer() override { return peer_.get(); }

  void add_to_commit(storage::CommitRequest& request) override {
    if (filters_) filters_->add_to_commit(request);
    if (peer_ != nullptr) peer_->add_to_commit(request);
    head_.add_to_commit(request);
  }
  void committed() override {
    if (peer_ != nullptr) peer_->committed();
    head_.committed();
  }
  void commit_failed() override {
    if (peer_ != nullptr) peer_->commit_failed();
    head_.commit_failed();
  }

 private:
  // (B, M)
  torch::Tensor features_of(const torch::Tensor& x) {
    const at::NoGradGuard no_grad;
    if (peer_ == nullptr) return (*filters_)(x);
    peer_->train(false);
    const torch::Tensor pool = peer_->forward(pool_inputs(x), 0).to(at::kCPU);
    return filters_ ? at::cat({(*filters_)(x), pool}, 1) : pool;
  }

  std::optional<ImageFilters> filters_;
  std::shared_ptr<PeerImpl> peer_;  // null for the head alone
  AnalyticHead head_;
  at::Device device_;  // the layer's
};

}  // namespace

std::unique_ptr<Model> make_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader* store,
                                       std::int64_t budget_bytes, ImageShape image,
                                       const Placement& placement) {
  const ModelOptions& options = config.model;
  std::optional<ImageFilters> fixed = ImageFilters::make(config, features, image);
  std::shared_ptr<PeerImpl> peer;
  if (options.head_pool > 0) {
    PeerOptions layer = options.peer;
    layer.d_in = features;
    layer.d_out = options.head_pool;
    peer = std::make_shared<PeerImpl>(layer, store, budget_bytes);
    peer->grow();
    peer->freeze();
  }
  AnalyticHead head((fixed ? fixed->size() : 0) + options.head_pool, classes, options.head_ridge);
  return std::make_unique<HeadModel>(config, std::move(fixed), std::move(peer), std::move(head),
                                     placement);
}

std::unique_ptr<Model> load_head_model(const RunConfig& config, std::int64_t features,
                                       std::int64_t classes, const storage::PageReader& store,
                                       std::int64_t budget_bytes, std::int64_t learnt_classes,
                                       const Placement& placement) {
  std::optional<ImageFilters> fixed = ImageFilters::load(config, features, store);
  std::shared_ptr<PeerImpl> peer;
  if (config.model.head_pool > 0) peer = PeerImpl::load(store, budget_bytes);
  AnalyticHead head = AnalyticHead::load(store);
  if (head.features() != (fixed ? fixed->size() : 0) + config.model.head_pool ||
      head.classes() != learnt_classes) {
    throw DataError("the store's analytic head has another shape than its run");
  }
  if (classes > learnt_classes) head.add_classes(classes);
  return std::make_unique<HeadModel>(config, std::move(fixed), std::move(peer), std::move(head),
                                     placement);
}

}  // namespace perennial::continual
