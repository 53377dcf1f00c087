// SPDX-License-Identifier: Apache-2.0
// The autoencoder gate.
#include "perennial/core/autoencoder_gate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "nn/batch_invariant.h"
#include "nn/gate_answers.h"
#include "nn/record_names.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"
#include "perennial/kernels/philox.h"
#include "perennial/kernels/reconstruction.h"

namespace perennial {

namespace {

// Word of Philox's counter that initial weights are drawn for.
constexpr std::uint32_t kWeights = 0x41000000;
constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
constexpr std::array kParts = {"encoder", "encoder_bias", "decoder", "decoder_bias"};
constexpr const char* kSteps = "gate/autoencoder_steps";  // (G) int64

}  // namespace

AutoencoderGate::AutoencoderGate(std::int64_t d_in, const AutoencoderGateOptions& options,
                                 const AnalyticGateOptions& answers)
    : d_in_(d_in), options_(options), answers_(answers) {
  validate_ranges(options_);
  if (options_.autoencoder_code >= d_in) {
    throw InvalidOptions("autoencoder_code is " + std::to_string(options_.autoencoder_code) +
                         "; a code must be smaller than the inputs, which have " +
                         std::to_string(d_in) + " features");
  }
}

void AutoencoderGate::add_generation() {
  const std::int64_t code = options_.autoencoder_code;
  Autoencoder made;
  made.weights = {at::empty({code, d_in_}), at::zeros({code}), at::empty({d_in_, code}),
                  at::zeros({d_in_})};
  // Xavier uniform (Glorot & Bengio 2010).
  const auto bound = static_cast<float>(std::sqrt(6.0 / static_cast<double>(d_in_ + code)));
  for (const std::uint32_t part : {0U, 2U}) {
    at::Tensor& tensor = made.weights[part];
    kernels::fill_uniform(
        static_cast<std::uint64_t>(answers_.gate_seed),
        static_cast<std::uint32_t>(autoencoders_.size()), part, kWeights, bound,
        {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
  }
  for (const at::Tensor& tensor : made.weights) {
    made.first.push_back(at::zeros_like(tensor));
    made.second.push_back(at::zeros_like(tensor));
  }
  autoencoders_.push_back(std::move(made));
}

void AutoencoderGate::observe(const at::Tensor& x, std::int64_t generation, const at::Tensor&) {
  const at::NoGradGuard no_grad;
  if (generation < 0 || generation >= generations()) {
    throw_unknown_generation(generation, generations());
  }
  Autoencoder& own = autoencoders_[static_cast<std::size_t>(generation)];
  if (own.first.empty()) {
    throw Error("the autoencoder of generation " + std::to_string(generation) + " is closed");
  }
  const at::Tensor s = x.sigmoid();
  if (!std::isfinite(s.sum().item<double>())) {
    throw DataError("an input of generation " + std::to_string(generation) + " is not finite");
  }
  const std::vector<at::Tensor>& w = own.weights;
  const at::Tensor h = s.mm(w[0].t()).add_(w[1]).relu_();
  // d (mean over rows and features) / d logits
  const at::Tensor delta =
      h.mm(w[2].t()).add_(w[3]).sigmoid_().sub_(s).div_(static_cast<double>(s.numel()));
  const at::Tensor back = delta.mm(w[2]).mul_(h.gt(0));
  const std::vector<at::Tensor> gradients = {back.t().mm(s), back.sum(0), delta.t().mm(h),
                                             delta.sum(0)};
  ++own.steps;
  std::vector<at::Tensor> steps;
  for (std::size_t i = 0; i < w.size(); ++i) {
    steps.push_back(at::full({}, static_cast<double>(own.steps), at::kFloat));
  }
  at::_fused_adam_(own.weights, gradients, own.first, own.second, {}, steps,
                   options_.autoencoder_lr, kBeta1, kBeta2, /*weight_decay=*/0, kEps,
                   /*amsgrad=*/false, /*maximize=*/false);
  for (const auto* tensors : {&own.weights, &own.first, &own.second}) {
    for (const at::Tensor& tensor : *tensors) count_write(tensor);
  }
}

void AutoencoderGate::close() {
  for (Autoencoder& own : autoencoders_) {
    own.first.clear();
    own.second.clear();
  }
}

at::Tensor AutoencoderGate::scores(const at::Tensor& x) const {
  const at::NoGradGuard no_grad;
  if (!x.is_cpu() || x.scalar_type() != at::kFloat || x.dim() != 2 || x.size(1) != d_in_) {
    throw Error("the autoencoder gate expects CPU float32 (B, " + std::to_string(d_in_) +
                "), not " + c10::toString(x.scalar_type()) + " " + c10::str(x.sizes()) + " on " +
                x.device().str());
  }
  const at::Tensor in = x.contiguous();
  const std::int64_t tokens = in.size(0);
  at::Tensor s = at::empty({tokens, d_in_});
  const float* const from = in.const_data_ptr<float>();
  float* const squashed = s.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, kRowGrain, [&](auto begin, auto end) {
    kernels::sigmoid((end - begin) * d_in_, from + begin * d_in_, squashed + begin * d_in_);
  });
  std::vector<at::Tensor> all;
  for (const Autoencoder& own : autoencoders_) {
    if (own.steps == 0) {
      all.push_back(at::full({tokens}, -std::numeric_limits<double>::infinity(), at::kFloat));
      continue;
    }
    const at::Tensor h = rows_times(s, own.weights[0], own.weights[1]).relu_();
    const at::Tensor logits = rows_times(h, own.weights[2], own.weights[3]);
    at::Tensor error = at::empty({tokens});
    const float* const of = logits.const_data_ptr<float>();
    float* const to = error.mutable_data_ptr<float>();
    at::parallel_for(0, tokens, kRowGrain, [&](auto begin, auto end) {
      kernels::reconstruction_error(begin, end, d_in_, of, squashed, to);
    });
    all.push_back(error.neg_());
  }
  if (all.empty()) throw Error("the gate has seen no generation");
  return at::stack(all, 1);
}

GateCandidates AutoencoderGate::who_answers() const {
  GateCandidates who;
  for (const Autoencoder& own : autoencoders_) who.candidates.push_back(own.steps > 0);
  return who;
}

at::Tensor AutoencoderGate::choose(const at::Tensor& x) const {
  return best_candidate(scores(x), who_answers());
}

at::Tensor AutoencoderGate::shares(const at::Tensor& x) const {
  return shares_of_candidates(scores(x), who_answers(), answers_.gate_temperature);
}

std::int64_t AutoencoderGate::parameters() const {
  return generations() *
         (2 * d_in_ * options_.autoencoder_code + d_in_ + options_.autoencoder_code);
}

void AutoencoderGate::add_to_commit(storage::CommitRequest& request) {
  DenseEntries::Offer offer = entries_.offer(request);
  at::Tensor steps = at::zeros({generations()}, at::kLong);
  for (std::size_t g = 0; g < autoencoders_.size(); ++g) {
    const Autoencoder& own = autoencoders_[g];
    steps[static_cast<std::int64_t>(g)] = own.steps;
    for (std::size_t i = 0; i < kParts.size(); ++i) {
      const std::string name = gate_entry(g, kParts[i]);
      offer.tensor(name, own.weights[i]);
      if (own.first.empty()) continue;
      offer.tensor(name + "/m", own.first[i]);
      offer.tensor(name + "/v", own.second[i]);
    }
  }
  offer.bytes(kSteps, bytes_from(steps));
}

AutoencoderGate AutoencoderGate::load(const storage::PageReader& store, std::int64_t d_in,
                                      const AutoencoderGateOptions& options,
                                      const AnalyticGateOptions& answers) {
  AutoencoderGate gate(d_in, options, answers);
  const storage::Bytes bytes = value_or_throw(store.read_dense(kSteps));
  const at::Tensor steps = tensor_from(bytes, kSteps);
  if (steps.dim() != 1 || steps.scalar_type() != at::kLong) {
    throw DataError(std::string("dense entry '") + kSteps + "' is not a list of steps");
  }
  gate.entries_.stored(kSteps, bytes);
  const auto read = [&](const std::string& name, at::Tensor& tensor) {
    tensor = tensor_like(store, name, tensor, "gate");
    gate.entries_.stored(name, tensor);
  };
  for (std::int64_t g = 0; g < steps.numel(); ++g) {
    gate.add_generation();
    Autoencoder& own = gate.autoencoders_.back();
    own.steps = steps[g].item<std::int64_t>();
    for (std::size_t i = 0; i < kParts.size(); ++i) {
      const std::string name = gate_entry(static_cast<std::size_t>(g), kParts[i]);
      read(name, own.weights[i]);
      if (own.first.empty()) continue;
      if (store.read_dense(name + "/m").status().code() == storage::StatusCode::not_found) {
        own.first.clear();
        own.second.clear();
        continue;
      }
      read(name + "/m", own.first[i]);
      read(name + "/v", own.second[i]);
    }
  }
  return gate;
}

}  // namespace perennial
