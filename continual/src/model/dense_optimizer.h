// SPDX-License-Identifier: Apache-2.0
// The optimizer of dense parameters: torch's fused kernels, with state that is named, committed and
// survives growth.
#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/participant.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// SGD, or Adam (Kingma & Ba 2015) with betas 0.9 and 0.999 and eps 1e-8, or that with decoupled
// weight decay (AdamW, Loshchilov & Hutter 2019). State is where its parameters are, which must all
// be on one device. Those of a pool's router have a learning rate of their own where asked for.
class DenseOptimizer : public Participant {
 public:
  using Parameters = std::vector<std::pair<std::string, torch::Tensor>>;

  explicit DenseOptimizer(const TrainOptions& options);

  // The parameters that train from now on. State of those that trained before is kept; of those
  // that are gone it is dropped.
  void set_parameters(Parameters parameters);
  // From the next step on learning rates are the options' times this.
  void scale_lr(double factor) { factor_ = factor; }
  void zero_grad();
  // Of the gradients that there are, as they are now: the sum of their squares, and scaling them.
  double squared_norm() const;
  void scale_gradients(double factor);
  // Updates those that have a gradient.
  void step();

  // Entries "optimizer/NAME/..." for the current parameters.
  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }
  // Drops all moments.
  void forget();
  // Drops the moments of parameters that have another shape now: they start anew.
  void forget_reshaped(const Parameters& parameters);
  // Reads the moments of the store's current state; set_parameters() takes them by name.
  void load(const storage::PageReader& store);

 private:
  struct Moments {
    torch::Tensor m, v;
    std::int64_t step = 0;
  };
  // Updates one parameter after the other of a group with this learning rate.
  struct Group {
    double lr = 0;
    std::vector<torch::Tensor> tensors, gradients, m, v;
    std::vector<float> steps;
  };
  void step_group(const Group& group) const;

  TrainOptions options_;
  double factor_ = 1;
  Parameters parameters_;
  std::map<std::string, Moments> moments_;  // of parameters that were updated; Adam's only
  DenseEntries entries_;
};

}  // namespace perennial::continual
