// SPDX-License-Identifier: Apache-2.0
// A number for each dense parameter: importances, anchors, gradients.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "perennial/continual/strategy.h"

namespace perennial::continual {

// The dense parameters that train, in the model's order.
std::vector<torch::Tensor> parameters_of(Model& model);

// One float32 tensor of P numbers where the parameters are, and views of it that have the
// parameters' shapes. What changes a view changes the whole.
class ParameterVector {
 public:
  bool defined() const { return flat_.defined(); }
  void reset();
  void set_zero(const std::vector<torch::Tensor>& parameters);
  // The parameters' values, or their gradients (0 where there is none).
  void set_values(const std::vector<torch::Tensor>& parameters);
  void set_gradients(const std::vector<torch::Tensor>& parameters);

  torch::Tensor& flat() { return flat_; }
  // Throws DataError when the parameters are not P numbers: a store of another model.
  const std::vector<torch::Tensor>& views(const std::vector<torch::Tensor>& parameters);
  void visit(StateVisitor& visitor, const std::string& name);

 private:
  torch::Tensor flat_;                // (P)
  std::vector<torch::Tensor> views_;  // empty until asked for
};

// While it lives, the parameters have a vector's values: a forward then answers as an older model
// did. Costs no copy.
class ParameterSwap {
 public:
  ParameterSwap(const std::vector<torch::Tensor>& parameters, ParameterVector& values);
  ~ParameterSwap();
  ParameterSwap(const ParameterSwap&) = delete;
  ParameterSwap& operator=(const ParameterSwap&) = delete;

 private:
  std::vector<torch::Tensor> parameters_;
  std::vector<torch::Tensor> own_;
};

// Outputs as at test of a model that has these parameters; without gradients.
torch::Tensor outputs_with(ParameterVector& values, Model& model, const torch::Tensor& x);

}  // namespace perennial::continual
