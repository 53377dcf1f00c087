// SPDX-License-Identifier: Apache-2.0
// One of several classes for each example.
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>

#include <cstdio>
#include <limits>
#include <utility>

#include "task/tasks.h"

namespace perennial::continual {

namespace {

class Accuracy : public Scorer {
 public:
  explicit Accuracy(const Task& task) : task_(task) {}

  // Whether the likeliest class, among those that there can be, is the example's.
  void add(const torch::Tensor& answers, const Batch& batch) override {
    right_ += task_.restrict_answers(answers, batch.experience)
                  .argmax(1)
                  .eq(batch.y)
                  .sum()
                  .item<std::int64_t>();
    all_ += batch.y.size(0);
  }
  double score() const override { return static_cast<double>(right_) / static_cast<double>(all_); }

 private:
  const Task& task_;
  std::int64_t right_ = 0, all_ = 0;
};

class Classification : public Task {
 public:
  Classification(std::vector<std::string> labels, std::int64_t tasks)
      : labels_(std::move(labels)), tasks_(tasks) {}

  TaskKind kind() const override { return TaskKind::classification; }
  const std::vector<std::string>& names() const override { return labels_; }

  torch::Tensor losses(const torch::Tensor& outputs, const torch::Tensor& targets) const override {
    return at::cross_entropy_loss(restrict_to_own(outputs, targets), targets, {},
                                  at::Reduction::None);
  }
  torch::Tensor loss(const torch::Tensor& outputs, const torch::Tensor& targets) const override {
    return at::cross_entropy_loss(restrict_to_own(outputs, targets), targets);
  }

  torch::Tensor restrict_answers(const torch::Tensor& outputs,
                                 const torch::Tensor& experiences) const override {
    if (tasks_ == 0) return outputs;
    // The classes of experience e are those from e C / T to (e + 1) C / T.
    const torch::Tensor owners = at::arange(this->outputs()).floor_divide(own_classes());
    const torch::Tensor foreign = owners.unsqueeze(0).ne(experiences.unsqueeze(1));
    return outputs.masked_fill(foreign.to(outputs.device()),
                               -std::numeric_limits<double>::infinity());
  }
  torch::Tensor restrict_to_own(const torch::Tensor& outputs,
                                const torch::Tensor& targets) const override {
    return tasks_ == 0 ? outputs : restrict_answers(outputs, targets.floor_divide(own_classes()));
  }

  torch::Tensor divergence(const torch::Tensor& before, const torch::Tensor& now,
                           double temperature) const override {
    const torch::Tensor q = (before / temperature).log_softmax(1);
    return (q.exp() * (q - (now / temperature).log_softmax(1))).sum(1).mean();
  }

  torch::Tensor drawn(const torch::Tensor& outputs,
                      const std::function<double()>& uniform) const override {
    const torch::Tensor p = outputs.softmax(1).contiguous();
    const std::int64_t classes = p.size(1);
    torch::Tensor labels = at::empty({p.size(0)}, at::kLong);
    for (std::int64_t row = 0; row < p.size(0); ++row) {
      const float* of = p.const_data_ptr<float>() + row * classes;
      double left = uniform();
      std::int64_t label = 0;
      while (label + 1 < classes && (left -= static_cast<double>(of[label])) >= 0) ++label;
      // Rounding may leave a rest for classes that cannot be.
      while (label > 0 && of[label] == 0) --label;
      labels.mutable_data_ptr<std::int64_t>()[row] = label;
    }
    return labels;
  }

  // sum_c p(c|x) (d log p(c|x) / d theta)^2
  std::vector<FisherTerm> fisher_terms(const torch::Tensor& outputs) const override {
    const torch::Tensor log_p = outputs.log_softmax(1);
    const torch::Tensor p = log_p.detach().exp();
    std::vector<FisherTerm> terms;
    for (std::int64_t c = 0; c < log_p.size(1); ++c) {
      torch::Tensor of_class = log_p.select(1, c);
      const torch::Tensor foreign = of_class.detach().isinf();
      if (foreign.all().item<bool>()) continue;
      if (foreign.any().item<bool>()) of_class = of_class.masked_fill(foreign, 0);
      terms.push_back({of_class, p.narrow(1, c, 1)});
    }
    return terms;
  }

  std::unique_ptr<Scorer> scorer() const override { return std::make_unique<Accuracy>(*this); }

  std::vector<std::string> prediction_columns() const override { return {"label", "confidence"}; }
  std::vector<std::vector<PredictionCell>> predictions(
      const torch::Tensor& answers) const override {
    const auto [confidence, label] = answers.max(1);
    std::vector<std::vector<PredictionCell>> lines;
    for (std::int64_t i = 0; i < label.size(0); ++i) {
      const std::string& name = labels_[static_cast<std::size_t>(label[i].item<std::int64_t>())];
      const double sure = confidence[i].item<double>();
      char text[32];
      std::snprintf(text, sizeof(text), "%.4f", sure);
      lines.push_back({{boost::json::string(name), name}, {sure, text}});
    }
    return lines;
  }

 private:
  std::int64_t own_classes() const { return outputs() / tasks_; }

  std::vector<std::string> labels_;
  std::int64_t tasks_;
};

}  // namespace

std::shared_ptr<const Task> make_classification(std::vector<std::string> labels,
                                                std::int64_t tasks) {
  return std::make_shared<Classification>(std::move(labels), tasks);
}

}  // namespace perennial::continual
