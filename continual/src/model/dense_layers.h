// SPDX-License-Identifier: Apache-2.0
// Dense layers with names: their initial values, their share of a commit, their dropout.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/core/amp.h"
#include "perennial/core/dense_entries.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// Where and how dense layers compute.
struct DenseCompute {
  at::Device device = at::kCPU;
  Amp amp = Amp::off;
};

// y = x W' + b, from U(+-1/sqrt(fan_in)) as torch initialises its linear layers. The initial values
// are the same on every device.
struct Linear {
  // `number` tells the layers of one seed apart, `lane` sets of them.
  Linear(std::string layer_name, const DenseCompute& how, std::uint32_t number, std::int64_t in,
         std::int64_t out, std::int64_t seed, std::uint32_t lane = 0);
  // x: (B, in) on the layer's device.
  torch::Tensor operator()(const torch::Tensor& x) const;

  std::string name;
  Amp amp;
  torch::Tensor weight, bias;  // (out, in), (out)
};

// Lane of layers around a pool with dropout, whose draws count up through the numbers of lane 0.
inline constexpr std::uint32_t kBesideDropout = std::uint32_t{1} << 30;

class DenseLayers {
 public:
  using Tensors = std::vector<std::pair<std::string, torch::Tensor>>;

  explicit DenseLayers(const DenseCompute& how) : how_(how) {}

  void add(const std::string& name, std::int64_t in, std::int64_t out, std::int64_t seed,
           std::uint32_t lane = 0) {
    layers_.emplace_back(name, how_, static_cast<std::uint32_t>(layers_.size()), in, out, seed,
                         lane);
  }
  const Linear& operator[](std::size_t i) const { return layers_[i]; }
  std::size_t size() const { return layers_.size(); }
  // What the layers read, from the host: the same tensor where they are there.
  torch::Tensor inputs(const torch::Tensor& x) const { return x.to(how_.device); }

  // "dense/NAME/weight" and "dense/NAME/bias" of the layers from `first` on.
  Tensors tensors(std::size_t first = 0) const;
  std::int64_t parameters() const;
  void offer(DenseEntries::Offer& offer) const;
  // Layers before `end` train no more.
  void freeze(std::size_t end);
  // `outputs`: of the last layer in the store, where it has more here; 0 = as many.
  void load(const storage::PageReader& store, DenseEntries& entries, std::int64_t outputs = 0);

 private:
  DenseCompute how_;
  std::vector<Linear> layers_;
};

// Dropout of hidden units (Srivastava et al. 2014): in training a unit is 0 with probability p,
// else scaled by 1 / (1 - p). Which ones follows from Philox by (seed, number of the forward,
// layer, place in the batch); the number of forwards is committed, so a resumed run draws the same.
// The host draws, whatever device the units are on.
class UnitDropout {
 public:
  UnitDropout(const ModelOptions& options, std::size_t layers);

  bool on() const { return p_ > 0; }
  // A forward of training begins.
  void begin() { ++forwards_; }
  // h: (B, units) of hidden layer `layer`, dropped out.
  torch::Tensor operator()(const torch::Tensor& h, std::size_t layer) const;

  void offer(DenseEntries::Offer& offer) const;
  void load(const storage::PageReader& store);

 private:
  double p_;
  std::uint64_t seed_;
  std::size_t layers_;
  std::int64_t forwards_ = 0;
};

}  // namespace perennial::continual
