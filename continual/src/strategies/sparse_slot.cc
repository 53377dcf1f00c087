// SPDX-License-Identifier: Apache-2.0
// Sparse-slot finetuning: few experts learn what is new.
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/parameter_vector.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<std::int64_t> kUpdateSlots{
    "update_slots", 64, "sparse_slot: experts that a step updates, t; 0 = all, and the router",
    Range{0, 1e9}};

// Lin et al. 2025, "Continual Learning via Sparse Memory Finetuning" (arXiv 2510.15103), section 3,
// with a PEER pool for the memory layer. The first experience trains everything. From the second on
// the router stays as it is, its parameters and the running statistics of its norm, and a step
// updates only the t experts with the largest TF-IDF of those it retrieved:
//   c(i) / sum_j c(j) * log((B + 1) / (b(i) + 1)),
// c(i) how often the step's rows retrieve expert i, B the batches of the background and b(i) those
// that retrieved i; ties to the lower id. The background is every batch of the experiences that
// have ended: it is updated as they end. A retrieval is one that gradients come from. Default t 64.
// With t = 0 all experts and the router train: naive, bit for bit. State 16 bytes an expert; from
// the second experience on a step costs one more retrieval.
class SparseSlot : public Strategy {
 public:
  explicit SparseSlot(const StrategyOptions& options) : slots_(options[kUpdateSlots]) {}

  bool reads_expert_gradients() const override { return slots_ > 0; }

  void before_experience(StrategyContext& context) override {
    if (slots_ == 0) return;
    const std::int64_t experts = static_cast<std::int64_t>(layer(context).pool().experts());
    if (!background_.defined()) background_ = at::zeros({experts}, at::kLong);
    current_ = at::zeros({experts}, at::kLong);
    current_batches_ = 0;
  }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    if (slots_ == 0 || context.experience == 0) return;
    PeerImpl& peer = layer(context);
    peer.hold_statistics();
    const torch::Tensor ids =
        peer.retrieve(context.model.layer_inputs(peer.name(), batch.x), generation(peer)).ids.cpu();
    counts_ = places(peer, ids).flatten().bincount({}, background_.numel());
  }

  void after_backward(StrategyContext& context, const TrainingBatch&) override {
    if (slots_ == 0 || context.experience == 0) return;
    // Without a gradient an optimizer leaves a parameter alone; with zeros its moments would move
    // it.
    for (torch::Tensor& parameter : parameters_of(context.model)) {
      parameter.mutable_grad() = torch::Tensor();
    }
  }

  void after_expert_backward(StrategyContext& context, const TrainingBatch&,
                             std::vector<CompactGradient>& gradients) override {
    if (slots_ == 0) return;
    CompactGradient& gradient = gradients.front();
    const torch::Tensor touched = places(layer(context), gradient.ids.cpu());
    current_.index_add_(0, touched, at::ones_like(touched));
    ++current_batches_;
    if (context.experience == 0 || touched.numel() <= slots_) return;
    const std::int64_t* place = touched.const_data_ptr<std::int64_t>();
    const std::int64_t* count = counts_.const_data_ptr<std::int64_t>();
    const std::int64_t* with = background_.const_data_ptr<std::int64_t>();
    std::vector<double> score(static_cast<std::size_t>(touched.numel()));
    for (std::size_t i = 0; i < score.size(); ++i) {
      // The sum of all counts is the same for all.
      score[i] = static_cast<double>(count[place[i]]) *
                 std::log(static_cast<double>(background_batches_ + 1) /
                          static_cast<double>(with[place[i]] + 1));
    }
    std::vector<std::int64_t> best(score.size());
    std::iota(best.begin(), best.end(), 0);
    const auto better = [&](std::int64_t a, std::int64_t b) {
      const double at = score[static_cast<std::size_t>(a)], bt = score[static_cast<std::size_t>(b)];
      return at != bt ? at > bt : a < b;
    };
    std::nth_element(best.begin(), best.begin() + slots_ - 1, best.end(), better);
    best.resize(static_cast<std::size_t>(slots_));
    std::sort(best.begin(), best.end());
    const torch::Tensor rows = at::tensor(best, at::kLong).to(gradient.ids.device());
    gradient.ids = gradient.ids.index_select(0, rows);
    gradient.values = gradient.values.index_select(0, rows);
  }

  void after_experience(StrategyContext&) override {
    if (slots_ == 0) return;
    background_.add_(current_);
    background_batches_ += current_batches_;
    current_.zero_();
    current_batches_ = 0;
  }

  void visit_state(StateVisitor& visitor) override {
    visitor.tensor("sparse_slot/background", background_);
    visitor.tensor("sparse_slot/current", current_);
    visitor.integer("sparse_slot/background_batches", background_batches_);
    visitor.integer("sparse_slot/current_batches", current_batches_);
  }

 private:
  static PeerImpl& layer(StrategyContext& context) { return *context.model.only_layer(); }
  static std::uint32_t generation(const PeerImpl& peer) { return *peer.pool().open_generation(); }
  // Where experts of these ids are among the generation's, row by row.
  static torch::Tensor places(const PeerImpl& peer, const torch::Tensor& ids) {
    const std::int64_t cols = peer.pool().generation(generation(peer)).cols;
    return ids.bitwise_right_shift(32).mul_(cols).add_(ids.bitwise_and(0xFFFFFFFF));
  }

  std::int64_t slots_;
  torch::Tensor
      background_;         // (N) int64: batches that retrieved each expert, of earlier experiences
  torch::Tensor current_;  // (N) of this one
  std::int64_t background_batches_ = 0;
  std::int64_t current_batches_ = 0;
  torch::Tensor counts_;  // (N) int64: uses by the step's rows, from the second experience on
};

}  // namespace

const StrategyDeclaration& strategies::sparse_slot() {
  static const StrategyDeclaration declaration{
      .name = "sparse_slot",
      .description =
          "after the first experience updates only the experts that matter to what is new",
      .options = {&kUpdateSlots},
      .needs = {.expert_gradients = "chooses among the experts that an input retrieves",
                .boundaries = true},
      .make = make_one<SparseSlot>,
  };
  return declaration;
}

}  // namespace perennial::continual
