// SPDX-License-Identifier: Apache-2.0
// Tasks: what a run learns to answer, what its loss is, and how its answers are judged.
#pragma once

#include <torch/types.h>

#include <boost/json/value.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "perennial/continual/dataset.h"
#include "perennial/continual/stream_options.h"
#include "perennial/continual/task_kind.h"

namespace perennial::continual {

// B rows, D features, C outputs of a model: one a class, or one a target.

// Examples with their targets: of a classification (B) int64, the class; of a regression (B, C)
// float32, (value - mean) / deviation of each target.
struct Batch {
  torch::Tensor x;                // (B, D) float32, preprocessed
  torch::Tensor y;                // the targets
  torch::Tensor experience = {};  // (B) int64: the experience that an example belongs to
};

// What a model's outputs (B, C) mean: of a classification, logits, whose softmax the answers are;
// of a regression they are the answers, in the scale of the targets.
torch::Tensor answers_of(TaskKind kind, const torch::Tensor& outputs);

// A part of the Fisher information of outputs: weight (d value / d theta)^2, summed over the parts.
struct FisherTerm {
  torch::Tensor value;   // (B), in the graph
  torch::Tensor weight;  // (B, 1)
};

// A cell of a prediction in a file.
struct PredictionCell {
  boost::json::value value;
  std::string text;  // as CSV has it, without quotes
};

// Takes the answers for one test set, batch by batch. Single-threaded.
class Scorer {
 public:
  virtual ~Scorer() = default;
  // `answers`: (B, C) for the batch's rows.
  virtual void add(const torch::Tensor& answers, const Batch& batch) = 0;
  // A finite number; more is better. Of a classification the share of right answers, a fraction; of
  // a regression R squared against the mean of the test set, averaged over the targets, -1e9 where
  // it is less.
  // Does not depend on how the rows were cut into batches. Needs a row.
  virtual double score() const = 0;
  // Of a regression, the root mean squared error of each target, in the units of the data; infinite
  // where answers are no numbers.
  virtual std::vector<double> errors() const { return {}; }
};

// Immutable; thread-safe. What it computes with is where the outputs are, and differentiable where
// outputs are in a graph.
class Task {
 public:
  virtual ~Task() = default;

  virtual TaskKind kind() const = 0;
  // C, and a name for each: the labels, or the targets.
  virtual const std::vector<std::string>& names() const = 0;
  std::int64_t outputs() const { return static_cast<std::int64_t>(names().size()); }

  // The loss of outputs (B, C) on targets, (B): the cross entropy, over the classes of the
  // example's experience where that is known at test; the squared error, averaged over the targets.
  virtual torch::Tensor losses(const torch::Tensor& outputs,
                               const torch::Tensor& targets) const = 0;
  // Its mean over the rows, a scalar.
  virtual torch::Tensor loss(const torch::Tensor& outputs, const torch::Tensor& targets) const = 0;

  // Outputs that have no part in the answers for these examples set to -infinity: where the
  // experience of an example is known at test, those of classes that it does not have. Else as
  // given. `experiences`: (B) int64, as in Batch.
  virtual torch::Tensor restrict_answers(const torch::Tensor& outputs,
                                         const torch::Tensor& experiences) const {
    (void)experiences;
    return outputs;
  }
  // The same in training, where the targets tell the experiences.
  virtual torch::Tensor restrict_to_own(const torch::Tensor& outputs,
                                        const torch::Tensor& targets) const {
    (void)targets;
    return outputs;
  }

  // How far outputs `now` (B, C) are from `before`, which are right: a scalar, the mean over the
  // rows. KL(q || p) with q and p the softmax of outputs divided by the temperature; the squared
  // difference of outputs divided by it, averaged over the targets. Times the temperature's square
  // a gradient's scale does not depend on it.
  virtual torch::Tensor divergence(const torch::Tensor& before, const torch::Tensor& now,
                                   double temperature = 1) const = 0;

  // Targets (B, ...) drawn from what the outputs answer; `uniform` draws from (0, 1).
  virtual torch::Tensor drawn(const torch::Tensor& outputs,
                              const std::function<double()>& uniform) const = 0;
  // The terms of the Fisher information of restricted outputs: one a class that any row can have,
  // or one a target.
  virtual std::vector<FisherTerm> fisher_terms(const torch::Tensor& outputs) const = 0;

  virtual std::unique_ptr<Scorer> scorer() const = 0;

  // What a prediction has in a file: the names of its cells, and the cells of answers (B, C), a
  // line each.
  virtual std::vector<std::string> prediction_columns() const = 0;
  virtual std::vector<std::vector<PredictionCell>> predictions(
      const torch::Tensor& answers) const = 0;
};

// The task of a stream with these labels, or, of a regression, with these names, means and
// deviations of the targets.
std::shared_ptr<const Task> make_task(const StreamOptions& options, std::vector<std::string> labels,
                                      const Preprocessing& targets);

}  // namespace perennial::continual
