// SPDX-License-Identifier: Apache-2.0
// The MLP and the PEER model.
#include "perennial/continual/model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "head_model.h"
#include "owners.h"
#include "perennial/core/dense_state.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

namespace {

// Word of Philox's counter that dense layers are drawn for; the layer is the first word.
constexpr std::uint32_t kDense = 0x44000000;

// A dense layer with a name; U(+-1/sqrt(fan_in)) as torch initialises its linear layers.
struct Linear {
  Linear(std::string layer_name, std::uint32_t number, std::int64_t in, std::int64_t out,
         std::int64_t seed)
      : name(std::move(layer_name)), weight(at::empty({out, in})), bias(at::empty({out})) {
    const auto bound = static_cast<float>(1 / std::sqrt(static_cast<double>(in)));
    const auto draw = [&](std::uint32_t part, at::Tensor& tensor) {
      kernels::fill_uniform(
          static_cast<std::uint64_t>(seed), number, part, kDense, bound,
          {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
      tensor.requires_grad_(true);
    };
    draw(0, weight);
    draw(1, bias);
  }

  torch::Tensor operator()(const torch::Tensor& x) const { return at::linear(x, weight, bias); }

  std::string name;
  torch::Tensor weight, bias;
};

// Dense layers under names, with their share of a commit.
class DenseLayers {
 public:
  void add(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t seed) {
    layers_.emplace_back(name, static_cast<std::uint32_t>(layers_.size()), in, out, seed);
  }
  const Linear& operator[](std::size_t i) const { return layers_[i]; }
  std::size_t size() const { return layers_.size(); }

  std::vector<std::pair<std::string, torch::Tensor>> tensors() const {
    std::vector<std::pair<std::string, torch::Tensor>> all;
    for (const Linear& layer : layers_) {
      all.emplace_back("dense/" + layer.name + "/weight", layer.weight);
      all.emplace_back("dense/" + layer.name + "/bias", layer.bias);
    }
    return all;
  }
  void add_to_commit(storage::CommitRequest& request) const {
    for (const auto& [name, tensor] : tensors()) request.dense[name] = bytes_from(tensor);
  }
  void load(const storage::PageReader& store) {
    const at::NoGradGuard no_grad;
    for (auto& [name, tensor] : tensors()) {
      const at::Tensor stored = tensor_from(value_or_throw(store.read_dense(name)), name);
      if (stored.sizes() != tensor.sizes()) {
        throw DataError("dense entry '" + name + "' has another shape than its model");
      }
      tensor.copy_(stored);
    }
  }

 private:
  std::vector<Linear> layers_;
};

std::int64_t count(const std::vector<std::pair<std::string, torch::Tensor>>& tensors) {
  std::int64_t n = 0;
  for (const auto& [name, tensor] : tensors) n += tensor.numel();
  return n;
}

class Mlp : public Model {
 public:
  Mlp(const RunConfig& config, std::int64_t features, std::int64_t classes) {
    const ModelOptions& options = config.model;
    std::int64_t in = features;
    for (std::int64_t i = 0; i < options.depth; ++i) {
      layers_.add("hidden" + std::to_string(i), in, options.hidden, options.peer.seed);
      in = options.hidden;
    }
    layers_.add("output", in, classes, options.peer.seed);
  }
  void load(const storage::PageReader& store) { layers_.load(store); }

  torch::Tensor train_forward(const torch::Tensor& x) override {
    torch::Tensor h = x;
    for (std::size_t i = 0; i + 1 < layers_.size(); ++i) h = layers_[i](h).relu();
    return layers_[layers_.size() - 1](h);
  }
  torch::Tensor traced_forward(const torch::Tensor& x, std::vector<LayerUse>& uses) override {
    torch::Tensor h = x;
    uses.clear();
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const torch::Tensor output = layers_[i](h);
      uses.push_back({2 * i, 2 * i + 1, h, output});
      h = output.relu();
    }
    return uses.back().output;
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t>) override {
    const at::NoGradGuard no_grad;
    return {train_forward(x).softmax(1), at::full({x.size(0)}, -1, at::kLong)};
  }
  std::vector<std::pair<std::string, torch::Tensor>> trainable() override {
    return layers_.tensors();
  }
  std::int64_t dense_parameters() const override { return count(layers_.tensors()); }
  void add_to_commit(storage::CommitRequest& request) override { layers_.add_to_commit(request); }
  void committed() override {}
  void commit_failed() override {}

 private:
  DenseLayers layers_;
};

// width 0: the layer maps features to classes. Else features -> width, a residual PEER layer, and
// width -> classes.
class PeerModel : public Model {
 public:
  PeerModel(const RunConfig& config, std::int64_t features, std::int64_t classes,
            std::shared_ptr<PeerImpl> peer, std::unique_ptr<AnalyticGate> gate)
      : width_(config.model.width), peer_(std::move(peer)), gate_(std::move(gate)) {
    if (width_ > 0) {
      layers_.add("input", features, width_, config.model.peer.seed);
      layers_.add("output", width_, classes, config.model.peer.seed);
    }
  }
  void load(const storage::PageReader& store) {
    layers_.load(store);
    owners_ = read_owners(store);
  }

  torch::Tensor train_forward(const torch::Tensor& x) override {
    peer_->train(true);
    if (width_ == 0) return peer_->forward(x);
    const torch::Tensor h = layers_[0](x);
    return layers_[1](h + peer_->forward(h));
  }

  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t> generation) override {
    const at::NoGradGuard no_grad;
    peer_->train(false);
    const auto newest = static_cast<std::int64_t>(peer_->pool().generations().size()) - 1;
    if (width_ > 0 || peer_->options().routing == Routing::shared) {
      torch::Tensor logits;
      if (width_ > 0) {
        const torch::Tensor h = layers_[0](x);
        logits = layers_[1](h + peer_->forward(h));
      } else {
        logits = peer_->forward(x);
      }
      return {logits.softmax(1), at::full({x.size(0)}, newest, at::kLong)};
    }
    const bool asked = gate_ != nullptr && (gate_->has_heads() || (!generation && newest > 0));
    const torch::Tensor f = asked ? gate_->features(x) : torch::Tensor();
    if (generation) {
      return answer(x, f, at::full({x.size(0)}, std::int64_t{*generation}, at::kLong));
    }
    if (gate_ == nullptr || newest == 0) {
      // Experts that were grown but have not trained yet do not answer.
      const std::int64_t trained =
          peer_->pool().newest_trained().value_or(peer_->pool().oldest_kept());
      return answer(x, f, at::full({x.size(0)}, trained, at::kLong));
    }
    if (gate_->options().gate_answer == GateAnswer::hard) return answer(x, f, gate_->choose_of(f));
    return mixed_answer(x, f, gate_->shares_of(f));
  }

  std::vector<std::pair<std::string, torch::Tensor>> trainable() override {
    auto all = layers_.tensors();
    for (auto& item : peer_->trainable()) all.push_back(std::move(item));
    return all;
  }
  std::int64_t dense_parameters() const override {
    std::int64_t n = count(layers_.tensors());
    for (const torch::Tensor& tensor : peer_->parameters()) n += tensor.numel();
    return n;
  }
  torch::Tensor pool_inputs(const torch::Tensor& x) override {
    const at::NoGradGuard no_grad;
    return width_ == 0 ? x : layers_[0](x);
  }
  PeerImpl* peer() override { return peer_.get(); }
  AnalyticGate* gate() override { return gate_.get(); }
  std::int64_t generation_of(std::int64_t experience) const override {
    return owner_of(owners_, experience);
  }
  void assign(std::int64_t experience, std::int64_t generation) override {
    if (owners_.empty() && generation == experience) return;
    while (std::cmp_less(owners_.size(), experience)) {
      owners_.push_back(static_cast<std::int64_t>(owners_.size()));
    }
    owners_.push_back(generation);
  }

  void add_to_commit(storage::CommitRequest& request) override {
    layers_.add_to_commit(request);
    peer_->add_to_commit(request);
    if (gate_ != nullptr) gate_->add_to_commit(request);
    if (!owners_.empty()) request.dense[kOwners] = bytes_from(at::tensor(owners_, at::kLong));
  }
  void commit_failed() override {
    peer_->commit_failed();
    if (gate_ != nullptr) gate_->commit_failed();
  }
  void committed() override {
    peer_->committed();
    if (gate_ != nullptr) gate_->committed();
  }

 private:
  // Probabilities (n, classes) that one generation gives to `rows` of x, with its class head's word
  // beside the pool's. f: the gate's features of x.
  torch::Tensor answer_of(std::int64_t generation, const torch::Tensor& x, const torch::Tensor& f,
                          const torch::Tensor& rows) {
    const auto of_rows = [&](const torch::Tensor& all) {
      return rows.numel() == all.size(0) ? all : all.index_select(0, rows);
    };
    torch::Tensor logits = peer_->forward(of_rows(x), static_cast<std::uint32_t>(generation));
    if (gate_ != nullptr && gate_->has_heads()) {
      logits = logits.log_softmax(1) +
               gate_->options().head_weight * gate_->class_scores_of(of_rows(f), generation);
    }
    return logits.softmax(1);
  }

  // Each input through the one generation chosen for it.
  Prediction answer(const torch::Tensor& x, const torch::Tensor& f, const torch::Tensor& chosen) {
    torch::Tensor probabilities = at::empty({x.size(0), peer_->options().d_out});
    const auto generations = static_cast<std::int64_t>(peer_->pool().generations().size());
    for (std::int64_t g = 0; g < generations; ++g) {
      const torch::Tensor rows = (chosen == g).nonzero().squeeze(1);
      if (rows.numel() > 0) probabilities.index_copy_(0, rows, answer_of(g, x, f, rows));
    }
    return {probabilities, chosen};
  }

  // shares: (B, G). The generations' probabilities averaged by them, in generation order.
  Prediction mixed_answer(const torch::Tensor& x, const torch::Tensor& f,
                          const torch::Tensor& shares) {
    torch::Tensor probabilities = at::zeros({x.size(0), peer_->options().d_out});
    for (std::int64_t g = 0; g < shares.size(1); ++g) {
      const torch::Tensor share = shares.select(1, g);
      const torch::Tensor rows = share.nonzero().squeeze(1);
      if (rows.numel() == 0) continue;
      probabilities.index_add_(0, rows,
                               answer_of(g, x, f, rows) * share.index_select(0, rows).unsqueeze(1));
    }
    return {probabilities, shares.argmax(1)};
  }

  std::int64_t width_;
  DenseLayers layers_;
  std::shared_ptr<PeerImpl> peer_;
  std::unique_ptr<AnalyticGate> gate_;
  std::vector<std::int64_t> owners_;  // generation of each experience; empty while none returned
};

}  // namespace

torch::Tensor Model::traced_forward(const torch::Tensor&, std::vector<LayerUse>&) {
  throw Error("only a model of dense layers can tell what each of them did");
}

std::unique_ptr<Model> make_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader* store,
                                  std::int64_t budget_bytes, ImageShape image) {
  if (config.model.model == ModelKind::mlp) {
    if (budget_bytes > 0) {
      throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                           "; model mlp has no pool to page");
    }
    return std::make_unique<Mlp>(config, features, classes);
  }
  if (config.model.head == HeadKind::analytic) {
    return make_head_model(config, features, classes, store, budget_bytes, image);
  }
  PeerOptions options = config.model.peer;
  options.d_in = config.model.width > 0 ? config.model.width : features;
  options.d_out = config.model.width > 0 ? config.model.width : classes;
  auto peer = std::make_shared<PeerImpl>(options, store, budget_bytes);
  peer->grow();
  std::unique_ptr<AnalyticGate> gate;
  if (config.gate() == GateKind::analytic) {
    gate = std::make_unique<AnalyticGate>(features, config.train.gate_options, classes, image);
    gate->add_generation();
  }
  return std::make_unique<PeerModel>(config, features, classes, std::move(peer), std::move(gate));
}

std::unique_ptr<Model> load_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader& store,
                                  std::int64_t budget_bytes) {
  if (config.model.model == ModelKind::mlp) {
    if (budget_bytes > 0) {
      throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                           "; model mlp has no pool to page");
    }
    auto model = std::make_unique<Mlp>(config, features, classes);
    model->load(store);
    return model;
  }
  if (config.model.head == HeadKind::analytic) {
    return load_head_model(config, features, classes, store, budget_bytes);
  }
  std::unique_ptr<AnalyticGate> gate;
  if (config.gate() == GateKind::analytic) {
    gate = std::make_unique<AnalyticGate>(AnalyticGate::load(store));
  }
  auto model = std::make_unique<PeerModel>(config, features, classes,
                                           PeerImpl::load(store, budget_bytes), std::move(gate));
  model->load(store);
  return model;
}

}  // namespace perennial::continual
