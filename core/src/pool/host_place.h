// SPDX-License-Identifier: Apache-2.0
// Experts in the frames of the pool's pager.
#pragma once

#include "pool/expert_place.h"
#include "pool/pager.h"

namespace perennial {

// Works on as many tokens, or experts, at a time as fit the memory budget, which changes no bit,
// and has the next ones loaded meanwhile. The bits depend on neither the thread count, nor the page
// size, nor the budget.
class HostPlace : public ExpertPlace {
 public:
  explicit HostPlace(Pool& pool) : pool_(pool) {}

  at::Device device() const override { return at::kCPU; }
  void follow() override {}
  void fetch() override {}
  ExpertAnswer forward(const ExpertQuestion& question) override;
  ExpertBackward backward(const ExpertQuestion& question, const ExpertAnswer& answer,
                          const at::Tensor& dy, bool wants_dx) override;
  void keep(ExpertTape::Entry entry) override { tape_.add(std::move(entry)); }
  CompactGradient compact_gradient() override;
  void clear_gradients() override { tape_.clear(); }
  void release_gradient_memory() override { tape_.release_gradient_memory(); }
  at::Tensor step(const kernels::UpdateRule& rule) override;
  at::Tensor step(const kernels::UpdateRule& rule, const CompactGradient& gradient) override;

 private:
  at::Tensor update(kernels::UpdateArgs& args);

  Pool& pool_;
  ExpertTape tape_;
  PagePin pin_;  // of updates; kept: reused, it allocates nothing
};

}  // namespace perennial
