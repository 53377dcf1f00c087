// SPDX-License-Identifier: Apache-2.0
// The PEER model, and making models.
#include "perennial/continual/model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "model/dense_layers.h"
#include "model/head_model.h"
#include "model/mlp.h"
#include "model/owners.h"
#include "perennial/core/autoencoder_gate.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/gate.h"
#include "perennial/core/names.h"
#include "perennial/core/shard_file.h"

namespace perennial::continual {

namespace {

// Dense entry: how many classes there were when each generation froze, kept once there are more.
constexpr const char* kKnown = "classes_of";

// width 0: the layer maps features to classes. Else features -> width, a residual PEER layer, and
// width -> classes.
class PeerModel : public Model {
 public:
  PeerModel(const RunConfig& config, std::int64_t features, std::int64_t classes,
            ExpertLayers experts, std::unique_ptr<AnalyticGate> gate,
            std::unique_ptr<AutoencoderGate> autoencoders, const Placement& placement)
      : task_(config.task()),
        width_(config.model.width),
        classes_(classes),
        device_(placement.device),
        layers_({placement.device, config.train.amp}),
        experts_(std::move(experts)),
        peer_(&experts_.get(std::string(kDefaultName))),
        gate_(std::move(gate)),
        autoencoders_(std::move(autoencoders)) {
    if (width_ > 0) {
      const std::uint32_t lane = config.model.dropout > 0 ? kBesideDropout : 0;
      layers_.add("input", features, width_, config.model.seed, lane);
      layers_.add("output", width_, classes, config.model.seed, lane);
    }
    peer_->set_amp(config.train.amp);
    if (placement.place) placement.place(*peer_);
  }
  void load(const storage::PageReader& store, std::int64_t outputs) {
    layers_.load(store, entries_, outputs);
    owners_ = read_owners(store);
    known_ = read_numbers(store, kKnown);
    if (outputs == classes_) return;
    // What is frozen never gives a new class.
    for (const Generation& generation : peer_->pool().generations()) {
      if (generation.state == GenerationState::open) continue;
      if (generation.index >= known_.size()) known_.push_back(outputs);
    }
  }

  torch::Tensor train_forward(const torch::Tensor& x) override {
    peer_->train(true);
    return forward(x);
  }
  torch::Tensor test_forward(const torch::Tensor& x) override {
    peer_->train(false);
    return forward(x);
  }

  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t> generation) override {
    const at::NoGradGuard no_grad;
    peer_->train(false);
    const auto newest = static_cast<std::int64_t>(peer_->pool().generations().size()) - 1;
    if (width_ > 0 || peer_->options().routing == Routing::shared) {
      return {answers_of(task_, forward(x)), at::full({x.size(0)}, newest, at::kLong)};
    }
    const bool asked = gate_ != nullptr && (gate_->has_heads() || (!generation && newest > 0));
    const torch::Tensor f = asked ? gate_->features(x) : torch::Tensor();
    if (generation) {
      return answer(x, f, at::full({x.size(0)}, std::int64_t{*generation}, at::kLong));
    }
    if (autoencoders_ != nullptr && newest > 0) {
      return autoencoders_->answers().gate_answer == GateAnswer::hard
                 ? answer(x, f, autoencoders_->choose(x))
                 : mixed_answer(x, f, autoencoders_->shares(x));
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
    std::int64_t n = layers_.parameters();
    for (const torch::Tensor& tensor : peer_->parameters()) n += tensor.numel();
    return n;
  }
  ExpertLayers* experts() override { return &experts_; }
  torch::Tensor layer_inputs(const std::string&, const torch::Tensor& x) override {
    const at::NoGradGuard no_grad;
    return width_ == 0 ? x.to(device_) : layers_[0](x.to(device_));
  }
  torch::Tensor generation_outputs(std::uint32_t generation, const torch::Tensor& x) override {
    const at::NoGradGuard no_grad;
    const bool training = peer_->is_training();
    peer_->train(false);
    const torch::Tensor outputs = of_classes(peer_->forward(x.to(device_), generation));
    peer_->train(training);
    return outputs.to(at::kCPU);
  }
  GenerationGate* gate() override {
    return gate_ != nullptr ? static_cast<GenerationGate*>(gate_.get()) : autoencoders_.get();
  }
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
    experts_.add_to_commit(request);  // first: it refuses a second commit beside one in flight
    DenseEntries::Offer offer = entries_.offer(request);
    layers_.offer(offer);
    if (!owners_.empty()) offer.bytes(kOwners, bytes_from(at::tensor(owners_, at::kLong)));
    if (!known_.empty()) offer.bytes(kKnown, bytes_from(at::tensor(known_, at::kLong)));
    if (gate() != nullptr) gate()->add_to_commit(request);
  }
  void commit_failed() override {
    entries_.commit_failed();
    experts_.commit_failed();
    if (gate() != nullptr) gate()->commit_failed();
  }
  void committed() override {
    entries_.committed();
    experts_.committed();
    if (gate() != nullptr) gate()->committed();
  }

 private:
  // Without the outputs that are spare.
  torch::Tensor of_classes(const torch::Tensor& outputs) const {
    return outputs.size(-1) == classes_ ? outputs : outputs.narrow(-1, 0, classes_);
  }

  // Through the newest generation, or all of a shared router's; from the host and to it.
  torch::Tensor forward(const torch::Tensor& x) {
    if (width_ == 0) return of_classes(peer_->forward(x.to(device_))).to(at::kCPU);
    const torch::Tensor h = layers_[0](x.to(device_));
    return layers_[1](h + peer_->forward(h)).to(at::kCPU);
  }

  // Answers (n, C) that one generation gives to `rows` of x, with its class head's word beside the
  // pool's. f: the gate's features of x.
  torch::Tensor answer_of(std::int64_t generation, const torch::Tensor& x, const torch::Tensor& f,
                          const torch::Tensor& rows) {
    const auto of_rows = [&](const torch::Tensor& all) {
      return rows.numel() == all.size(0) ? all : all.index_select(0, rows);
    };
    torch::Tensor outputs =
        of_classes(peer_->forward(of_rows(x).to(device_), static_cast<std::uint32_t>(generation)))
            .to(at::kCPU);
    if (std::cmp_less(generation, known_.size())) {
      const std::int64_t known = known_[static_cast<std::size_t>(generation)];
      outputs.narrow(1, known, classes_ - known).fill_(-std::numeric_limits<float>::infinity());
    }
    if (gate_ != nullptr && gate_->has_heads()) {
      outputs = outputs.log_softmax(1) +
                gate_->options().head_weight * gate_->class_scores_of(of_rows(f), generation);
    }
    return answers_of(task_, outputs);
  }

  // Each input through the one generation chosen for it.
  Prediction answer(const torch::Tensor& x, const torch::Tensor& f, const torch::Tensor& chosen) {
    torch::Tensor answers = at::empty({x.size(0), classes_});
    const auto generations = static_cast<std::int64_t>(peer_->pool().generations().size());
    for (std::int64_t g = 0; g < generations; ++g) {
      const torch::Tensor rows = (chosen == g).nonzero().squeeze(1);
      if (rows.numel() > 0) answers.index_copy_(0, rows, answer_of(g, x, f, rows));
    }
    return {answers, chosen};
  }

  // shares: (B, G). The generations' answers averaged by them, in generation order.
  Prediction mixed_answer(const torch::Tensor& x, const torch::Tensor& f,
                          const torch::Tensor& shares) {
    torch::Tensor answers = at::zeros({x.size(0), classes_});
    for (std::int64_t g = 0; g < shares.size(1); ++g) {
      const torch::Tensor share = shares.select(1, g);
      const torch::Tensor rows = share.nonzero().squeeze(1);
      if (rows.numel() == 0) continue;
      answers.index_add_(0, rows,
                         answer_of(g, x, f, rows) * share.index_select(0, rows).unsqueeze(1));
    }
    return {answers, shares.argmax(1)};
  }

  TaskKind task_;
  std::int64_t width_, classes_;
  at::Device device_;
  DenseLayers layers_;
  ExpertLayers experts_;
  PeerImpl* peer_;  // its layer
  std::unique_ptr<AnalyticGate> gate_;
  std::unique_ptr<AutoencoderGate> autoencoders_;  // instead of gate_, where asked for
  std::vector<std::int64_t> owners_;  // generation of each experience; empty while none returned
  std::vector<std::int64_t> known_;   // classes of the first generations; later ones know all
  DenseEntries entries_;
};

}  // namespace

torch::Tensor Model::test_forward(const torch::Tensor&) {
  throw Error("this model does not learn by gradient");
}

torch::Tensor Model::layer_inputs(const std::string& layer, const torch::Tensor&) {
  throw Error("this model has no layer '" + layer + "'");
}

torch::Tensor Model::generation_outputs(std::uint32_t, const torch::Tensor&) {
  throw Error("this model has no generations that answer by themselves");
}

PeerImpl* Model::only_layer() {
  ExpertLayers* all = experts();
  return all != nullptr && all->layers().size() == 1 ? all->layers().begin()->second.get()
                                                     : nullptr;
}

std::int64_t Model::newest_generation() {
  return experts() != nullptr ? static_cast<std::int64_t>(experts()->generations()) - 1
                              : std::numeric_limits<std::uint32_t>::max();
}

ExpertLayers& Model::pooled() {
  if (experts() == nullptr) throw Error("this model has no pool of experts, and no generations");
  return *experts();
}

std::uint32_t Model::grow(std::int64_t rows, std::int64_t cols) {
  const std::uint32_t generation = pooled().grow(rows, cols);
  if (gate() != nullptr) gate()->add_generation();
  return generation;
}

storage::Digest Model::freeze() {
  const storage::Digest digest = pooled().freeze();
  if (gate() != nullptr) gate()->close();
  return digest;
}

void Model::export_generation(std::uint32_t generation, const std::filesystem::path& path) {
  if (PeerImpl* layer = only_layer()) {
    export_shard(*layer, generation, path);
  } else {
    export_shards(pooled(), generation, path);
  }
}

std::uint32_t Model::import_generation(const std::filesystem::path& path) {
  PeerImpl* layer = only_layer();
  const std::uint32_t generation =
      layer != nullptr ? import_shard(*layer, path).index : import_shards(pooled(), path);
  if (gate() != nullptr) {
    gate()->add_generation();
    gate()->close();
  }
  return generation;
}

void Model::add_column() { throw Error("this model has no columns"); }

torch::Tensor Model::traced_forward(const torch::Tensor&, std::vector<LayerUse>&) {
  throw Error("only a model of dense layers can tell what each of them did");
}

std::unique_ptr<Model> make_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader* store,
                                  std::int64_t budget_bytes, ImageShape image,
                                  const Placement& placement) {
  if (config.model.model == ModelKind::mlp) {
    if (budget_bytes > 0) {
      throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                           "; model mlp has no pool to page");
    }
    DenseInputs inputs = DenseInputs::make(config, features, image);
    return config.train.strategy.has("progressive")
               ? make_columns(config, std::move(inputs), classes, placement)
               : make_mlp(config, std::move(inputs), classes, placement);
  }
  if (config.model.head == HeadKind::analytic) {
    return make_head_model(config, features, classes, store, budget_bytes, image, placement);
  }
  const std::int64_t width = config.model.width;
  const PeerOptions options =
      width > 0 ? config.model.layer(width, width)
                : config.model.layer(features, classes + config.model.spare_classes);
  ExpertLayers experts(store, budget_bytes);
  experts.add(std::string(kDefaultName), options);
  experts.grow(0, config.first_columns());
  std::unique_ptr<AnalyticGate> gate;
  if (config.gate() == GateKind::analytic) {
    gate = std::make_unique<AnalyticGate>(features, config.train.gate_options, classes, image);
    gate->add_generation();
  }
  std::unique_ptr<AutoencoderGate> autoencoders;
  if (config.gate() == GateKind::autoencoder) {
    autoencoders = std::make_unique<AutoencoderGate>(features, config.train.autoencoder_options,
                                                     config.train.gate_options);
    autoencoders->add_generation();
  }
  return std::make_unique<PeerModel>(config, features, classes, std::move(experts), std::move(gate),
                                     std::move(autoencoders), placement);
}

std::unique_ptr<Model> load_model(const RunConfig& config, std::int64_t features,
                                  std::int64_t classes, const storage::PageReader& store,
                                  std::int64_t budget_bytes, std::int64_t learnt_classes,
                                  const Placement& placement) {
  const std::int64_t learnt = learnt_classes > 0 ? learnt_classes : classes;
  if (config.model.model == ModelKind::mlp) {
    if (budget_bytes > 0) {
      throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                           "; model mlp has no pool to page");
    }
    DenseInputs inputs = DenseInputs::load(config, features, store);
    return config.train.strategy.has("progressive")
               ? load_columns(config, std::move(inputs), classes, store, placement)
               : load_mlp(config, std::move(inputs), classes, store, learnt, placement);
  }
  if (config.model.head == HeadKind::analytic) {
    return load_head_model(config, features, classes, store, budget_bytes, learnt, placement);
  }
  ExpertLayers experts = ExpertLayers::load(store, budget_bytes);
  const std::int64_t answers = experts.get(std::string(kDefaultName)).options().d_out;
  if (config.model.width == 0 && classes > answers) {
    throw InvalidOptions("the store's experts answer with the classes themselves, " +
                         std::to_string(answers) + " at most, and there are " +
                         std::to_string(classes) +
                         " now; a store with spare_classes, head analytic, a width or model mlp "
                         "can take more");
  }
  std::unique_ptr<AnalyticGate> gate;
  if (config.gate() == GateKind::analytic) {
    gate = std::make_unique<AnalyticGate>(AnalyticGate::load(store));
  }
  std::unique_ptr<AutoencoderGate> autoencoders;
  if (config.gate() == GateKind::autoencoder) {
    autoencoders = std::make_unique<AutoencoderGate>(AutoencoderGate::load(
        store, features, config.train.autoencoder_options, config.train.gate_options));
  }
  auto model = std::make_unique<PeerModel>(config, features, classes, std::move(experts),
                                           std::move(gate), std::move(autoencoders), placement);
  model->load(store, learnt);
  return model;
}

}  // namespace perennial::continual
