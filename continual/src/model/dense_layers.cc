// SPDX-License-Identifier: Apache-2.0
// Dense layers and their dropout.
#include "model/dense_layers.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>

#include <cmath>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

namespace {

// Word of Philox's counter that dense layers are drawn for; the layer is the first word.
constexpr std::uint32_t kDense = 0x44000000;
// kernels::dropout shares that word; its draws from here on share no other with the layers' values.
constexpr std::uint64_t kDraws = std::uint64_t{1} << 63;
constexpr const char* kForwards = "dense/dropout_forwards";
// Elements that are worth a thread.
constexpr std::int64_t kGrain = 16384;

}  // namespace

Linear::Linear(std::string layer_name, const DenseCompute& how, std::uint32_t number,
               std::int64_t in, std::int64_t out, std::int64_t seed, std::uint32_t lane)
    : name(std::move(layer_name)), amp(how.amp) {
  const auto bound = static_cast<float>(1 / std::sqrt(static_cast<double>(in)));
  const auto drawn = [&](std::uint32_t part, at::IntArrayRef sizes) {
    at::Tensor tensor = at::empty(sizes);
    kernels::fill_uniform(
        static_cast<std::uint64_t>(seed), number, lane + part, kDense, bound,
        {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
    return tensor.to(how.device).requires_grad_(true);
  };
  weight = drawn(0, {out, in});
  bias = drawn(1, {out});
}

torch::Tensor Linear::operator()(const torch::Tensor& x) const {
  return linear(x, weight, bias, amp);
}

DenseLayers::Tensors DenseLayers::tensors(std::size_t first) const {
  Tensors all;
  for (std::size_t i = first; i < layers_.size(); ++i) {
    all.emplace_back("dense/" + layers_[i].name + "/weight", layers_[i].weight);
    all.emplace_back("dense/" + layers_[i].name + "/bias", layers_[i].bias);
  }
  return all;
}

std::int64_t DenseLayers::parameters() const {
  std::int64_t n = 0;
  for (const auto& [name, tensor] : tensors()) n += tensor.numel();
  return n;
}

void DenseLayers::offer(DenseEntries::Offer& offer) const {
  for (const auto& [name, tensor] : tensors()) offer.tensor(name, tensor);
}

void DenseLayers::freeze(std::size_t end) {
  for (std::size_t i = 0; i < end; ++i) {
    layers_[i].weight.requires_grad_(false);
    layers_[i].bias.requires_grad_(false);
  }
}

void DenseLayers::load(const storage::PageReader& store, DenseEntries& entries,
                       std::int64_t outputs) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : tensors()) {
    const at::Tensor stored = tensor_from(value_or_throw(store.read_dense(name)), name);
    const bool last = outputs > 0 && name.starts_with("dense/" + layers_.back().name + "/");
    const at::Tensor part = last ? tensor.narrow(0, 0, outputs) : tensor;
    if (stored.sizes() != part.sizes()) {
      throw DataError("dense entry '" + name + "' has another shape than its model");
    }
    part.copy_(stored);
    if (part.is_same(tensor)) entries.stored(name, tensor);
  }
}

UnitDropout::UnitDropout(const ModelOptions& options, std::size_t layers)
    : p_(options.dropout), seed_(static_cast<std::uint64_t>(options.seed)), layers_(layers) {}

torch::Tensor UnitDropout::operator()(const torch::Tensor& h, std::size_t layer) const {
  torch::Tensor keep = at::ones(h.sizes());
  float* data = keep.mutable_data_ptr<float>();
  const std::uint64_t draw = kDraws | (static_cast<std::uint64_t>(forwards_) * layers_ + layer);
  at::parallel_for(0, keep.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
    kernels::dropout(seed_, draw, p_, data, data, begin, end);
  });
  return h * keep.to(h.device());
}

void UnitDropout::offer(DenseEntries::Offer& offer) const {
  if (on()) offer.bytes(kForwards, bytes_from(at::full({}, forwards_, at::kLong)));
}

void UnitDropout::load(const storage::PageReader& store) {
  if (!on()) return;
  const at::Tensor stored = tensor_from(value_or_throw(store.read_dense(kForwards)), kForwards);
  if (stored.numel() != 1 || stored.scalar_type() != at::kLong) {
    throw DataError(std::string("dense entry '") + kForwards + "' is not an integer");
  }
  forwards_ = stored.item<std::int64_t>();
}

}  // namespace perennial::continual
