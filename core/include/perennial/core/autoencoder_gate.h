// SPDX-License-Identifier: Apache-2.0
// The autoencoder gate: which generation answers an input, by who can reconstruct it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "perennial/core/dense_entries.h"
#include "perennial/core/gate.h"
#include "perennial/core/generation_gate.h"
#include "perennial/core/options.h"
#include "perennial/storage/page_store.h"

namespace perennial {

struct GateCandidates;

struct AutoencoderGateOptions {
  std::int64_t autoencoder_code = 64;
  double autoencoder_lr = 1e-3;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("autoencoder_code", self.autoencoder_code,
            "width of the code of the autoencoder gate, less than the inputs'", Range{1, 16384});
    visitor("autoencoder_lr", self.autoencoder_lr, "learning rate of the autoencoders (Adam)",
            Range{1e-9, 1});
  }
};

// Aljundi et al. 2017, "Expert Gate: Lifelong Learning with a Network of Experts" (arXiv
// 1611.06194), section 3.1: one undercomplete autoencoder a generation,
//   r(x) = sigmoid(W_d relu(W_e s + b_e) + b_d),  s = sigmoid(x) of standardised inputs x,
// trained on the generation's inputs alone by the cross entropy of r and s; an input goes to the
// generation with the smallest reconstruction error er_g, the mean of that cross entropy over the
// features. The scores are -er_g, and the shares of a mixed answer their softmax times the factor
// gate_temperature (the paper's t is one over it).
//
// The autoencoders train one Adam step a batch that is observed, in the same pass as the pool. What
// a newer generation observes changes none of an older one, so a choice among older generations
// stays as it is. An input's scores do not depend on the batch around it; the autoencoders depend,
// in rounding, on the batches observed. Single-threaded; D features, C code: 8 D C bytes a
// generation, three times that while it is open, and as much again once that was committed.
class AutoencoderGate : public GenerationGate {
 public:
  // `answers` has the seed and how scores decide. Throws InvalidOptions when the code is not
  // smaller than the input.
  AutoencoderGate(std::int64_t d_in, const AutoencoderGateOptions& options,
                  const AnalyticGateOptions& answers);
  // As the store's current state has it. Throws StorageError, DataError.
  static AutoencoderGate load(const storage::PageReader& store, std::int64_t d_in,
                              const AutoencoderGateOptions& options,
                              const AnalyticGateOptions& answers);

  std::int64_t generations() const override {
    return static_cast<std::int64_t>(autoencoders_.size());
  }
  const AnalyticGateOptions& answers() const { return answers_; }
  // Adds a generation, untrained: it is not chosen before it observed inputs.
  void add_generation() override;
  // One step of the generation's autoencoder on inputs x: (B, d_in). Cost: O(B d_in code).
  void observe(const at::Tensor& x, std::int64_t generation, const at::Tensor& y = {}) override;
  // Drops the optimizer's moments.
  void close() override;

  // (B, G) scores of inputs; -infinity for generations that observed nothing.
  at::Tensor scores(const at::Tensor& x) const;
  // (B) int64, the best score, ties to the older one; the oldest when none observed anything.
  at::Tensor choose(const at::Tensor& x) const;
  // (B, G): shares of a mixed answer; those below 1/1024 of the largest are 0.
  at::Tensor shares(const at::Tensor& x) const;

  std::int64_t parameters() const;
  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }

 private:
  struct Autoencoder {
    std::vector<at::Tensor> weights;        // (C, D), (C), (D, C), (D)
    std::vector<at::Tensor> first, second;  // Adam's moments; empty once closed
    std::int64_t steps = 0;
  };

  GateCandidates who_answers() const;

  std::int64_t d_in_;
  AutoencoderGateOptions options_;
  AnalyticGateOptions answers_;
  std::vector<Autoencoder> autoencoders_;
  DenseEntries entries_;
};

}  // namespace perennial
