// SPDX-License-Identifier: Apache-2.0
// A model of four PEER layers, two of them over one pool, for tests of several layers and pools.
#pragma once

#include <memory>

#include "core/core_testing.h"
#include "perennial/core/expert_layers.h"

namespace perennial::testing {

// (B, 8) -> (B, 8): layers a and b have pools of their own, of different page sizes; c and d read
// pool "tied", each with keys of its own. y = d(c(h)) + h for h = b(a(x)).
struct LayeredModel {
  // The pages of one token of the layer that needs most, weights and state.
  static constexpr std::int64_t kSmallestBudget = 10752;

  LayeredModel(const storage::PageReader* store, std::int64_t budget) : layers(store, budget) {
    layers.add("a", options(8, 16, 2, 512));
    layers.add("b", options(16, 8, 1, 256));
    layers.add("c", options(8, 8, 2, 384), "tied");
    PeerOptions d = options(8, 8, 2, 384);
    d.heads = 1;
    d.query_norm = QueryNorm::rms;
    layers.add("d", d, "tied");
    layers.grow();
    attach();
  }
  static std::unique_ptr<LayeredModel> load(const storage::PageReader& store, std::int64_t budget) {
    auto model = std::unique_ptr<LayeredModel>(new LayeredModel(ExpertLayers::load(store, budget)));
    model->attach();
    return model;
  }

  std::uint32_t grow() { return layers.grow(); }
  void add_to_commit(storage::CommitRequest& request) { layers.add_to_commit(request); }
  void committed() { layers.committed(); }
  void commit_failed() { layers.commit_failed(); }

  at::Tensor forward(const at::Tensor& x, std::uint32_t generation) {
    const at::Tensor h = of("b", of("a", x, generation), generation);
    return of("d", of("c", h, generation), generation) + h;
  }
  // From the host and to it.
  at::Tensor answer(const at::Tensor& x, std::uint32_t generation) {
    const at::NoGradGuard no_grad;
    set_training(false);
    return forward(x.to(device()), generation).cpu();
  }
  at::Device device() const { return layers.pools().front()->device(); }
  // Steps on made-up inputs that differ from step to step and from seed to seed.
  void train(int steps, std::uint64_t seed) {
    for (int i = 0; i < steps; ++i) {
      const at::Tensor x = inputs(seed * 1000 + static_cast<std::uint64_t>(i), 8, 8).to(device());
      set_training(true);
      for (const auto& [name, layer] : layers.layers()) layer->zero_grad();
      const at::Tensor y = forward(x, *layers.open_generation());
      (y - x.flip(1)).square().mean().backward();
      {
        const at::NoGradGuard no_grad;
        for (auto& [name, parameter] : layers.trainable()) {
          if (parameter.grad().defined()) parameter.sub_(parameter.grad() * 0.05);
        }
        for (const auto& [name, layer] : layers.layers()) layer->keys_changed();
      }
      for (const auto& experts : optimizers) experts->step();
    }
  }

  ExpertLayers layers;
  std::vector<std::unique_ptr<SparseOptimizer>> optimizers;  // of the pools, in their order

 private:
  explicit LayeredModel(ExpertLayers loaded) : layers(std::move(loaded)) {}

  static PeerOptions options(std::int64_t d_in, std::int64_t d_out, std::int64_t heads,
                             std::int64_t page_bytes) {
    PeerOptions options = small_options();
    options.d_in = d_in;
    options.d_out = d_out;
    options.heads = heads;
    options.page_bytes = page_bytes;
    return options;
  }
  void attach() {
    for (const auto& pool : layers.pools()) {
      optimizers.push_back(std::make_unique<SparseOptimizer>(*pool, SparseOptimizerOptions{}));
    }
    layers.require_budget();
  }
  void set_training(bool on) {
    for (const auto& [name, layer] : layers.layers()) layer->train(on);
  }
  at::Tensor of(const char* name, const at::Tensor& x, std::uint32_t generation) {
    return layers.get(name).forward(x, generation);
  }
};

}  // namespace perennial::testing
