// SPDX-License-Identifier: Apache-2.0
// Both layers, and that they compute the same.
#include "peer_sides.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "perennial/kernels/expert_id.h"
#include "pool/pager.h"

namespace perennial::bench {
namespace {

at::Tensor new_leaf(const at::Tensor& values, const at::Device& device) {
  return values.detach().clone().to(device).requires_grad_();
}

// A trainable tensor of the layer's router.
at::Tensor router_tensor(OurSide& ours, const std::string& name) {
  for (const auto& [full, tensor] : ours.layer().trainable()) {
    if (full.ends_with(name)) return tensor;
  }
  fail("the router has no tensor " + name);
}

double share_close(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  return at::isclose(a, b, tolerance, tolerance).to(at::kFloat).mean().item<double>();
}

void require_share(const char* what, double share, double least) {
  if (share >= least) return;
  fail("ours and the eager baseline disagree: " + std::string(what) + " agree in a share of " +
       std::to_string(share) + " only");
}

}  // namespace

FusedAdam::FusedAdam(std::vector<at::Tensor> tensors) : tensors_(std::move(tensors)) {
  for (const at::Tensor& tensor : tensors_) {
    m_.push_back(at::zeros_like(tensor.detach()));
    v_.push_back(at::zeros_like(tensor.detach()));
    steps_.push_back(at::zeros({}, tensor.options()));
  }
}

void FusedAdam::step() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& tensor : tensors_) gradients.push_back(tensor.grad());
  for (const at::Tensor& step : steps_) step.add_(1);
  at::_fused_adam_(tensors_, gradients, m_, v_, {}, steps_, kLearningRate, 0.9, 0.999, 0, 1e-8,
                   /*amsgrad=*/false, /*maximize=*/false);
}

PeerOptions peer_options(const PeerSizes& sizes) {
  PeerOptions options;
  options.d_in = options.d_out = sizes.width;
  options.heads = sizes.heads;
  options.top_k = sizes.top_k;
  options.d_key = sizes.d_key;
  options.rows = options.cols = sizes.side;
  options.sub_keys = SubKeys::per_head;
  options.query_norm = QueryNorm::none;
  return options;
}

OurSide::OurSide(const PeerSizes& sizes, kernels::WeightType type,
                 const std::function<void(PeerImpl&)>& place)
    : sizes_(sizes) {
  PeerOptions options = peer_options(sizes);
  options.dtype = type;
  layer_ = std::make_shared<PeerImpl>(options);
  if (place) place(*layer_);
  pin_all();
}

void OurSide::pin_all() {
  if (!layer_->pool().device().is_cpu()) return;
  std::vector<std::int64_t> ids;
  for (std::int64_t row = 0; row < sizes_.side; ++row) {
    for (std::int64_t col = 0; col < sizes_.side; ++col) {
      ids.push_back(
          kernels::expert_id(static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(col)));
    }
  }
  PagePin pin;
  for (std::size_t at = 0; at < ids.size();) {
    at += layer_->pool().pager().pin_for_update(std::span(ids).subspan(at), pin);
  }
}

void OurSide::attach_optimizer() {
  sparse_.emplace(layer_->pool(), SparseOptimizerOptions{.lr = kLearningRate});
  pin_all();
  std::vector<at::Tensor> tensors;
  for (const auto& named : layer_->trainable()) tensors.push_back(named.second);
  dense_ = std::make_unique<FusedAdam>(std::move(tensors));
}

at::Tensor OurSide::forward(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  layer_->eval();
  return layer_->forward(x);
}

void OurSide::clear_gradients() {
  layer_->zero_grad();
  layer_->pool().clear_gradients();
}

void OurSide::backward(const at::Tensor& x, const at::Tensor& dy) {
  layer_->zero_grad();
  layer_->train();
  layer_->forward(x.detach().requires_grad_()).backward(dy);
}

void OurSide::step(const at::Tensor& x, const at::Tensor& dy) {
  backward(x, dy);
  sparse_->step();
  dense_->step();
}

void OurSide::step_compact(const at::Tensor& x, const at::Tensor& dy) {
  backward(x, dy);
  sparse_->step(layer_->pool().compact_gradient());
  dense_->step();
}

EagerSide::EagerSide(OurSide& ours, const at::Device& device)
    : sizes_(ours.sizes()),
      query_(new_leaf(router_tensor(ours, "query"), device)),
      row_keys_(new_leaf(router_tensor(ours, "row_keys_00000"), device)),
      col_keys_(new_leaf(router_tensor(ours, "col_keys_00000"), device)),
      u_(at::empty({sizes_.experts(), sizes_.width}, query_.options().requires_grad(false))),
      v_(at::empty_like(u_)) {
  for (std::int64_t row = 0; row < sizes_.side; ++row) {
    std::vector<std::int64_t> ids;
    for (std::int64_t col = 0; col < sizes_.side; ++col) {
      ids.push_back(
          kernels::expert_id(static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(col)));
    }
    const ExpertValues values = ours.layer().pool().experts_at(ids);
    u_.narrow(0, row * sizes_.side, sizes_.side).copy_(values.u);
    v_.narrow(0, row * sizes_.side, sizes_.side).copy_(values.v);
  }
  u_.requires_grad_();
  v_.requires_grad_();
}

void EagerSide::attach_optimizer() {
  // Written, not merely reserved: their memory is there before a step.
  const auto zeros = [](const at::Tensor& like) { return at::empty_like(like.detach()).zero_(); };
  u_moments_ = {zeros(u_), zeros(u_)};
  v_moments_ = {zeros(v_), zeros(v_)};
  dense_ = std::make_unique<FusedAdam>(std::vector{query_, row_keys_, col_keys_});
}

std::pair<at::Tensor, at::Tensor> EagerSide::scores(const at::Tensor& x) const {
  const std::int64_t half = sizes_.d_key / 2;
  const at::Tensor query = at::matmul(x.to(query_.device()), query_.t())
                               .view({x.size(0), sizes_.heads, sizes_.d_key})
                               .transpose(0, 1);
  return {at::matmul(query.narrow(2, 0, half), row_keys_.transpose(1, 2)),
          at::matmul(query.narrow(2, half, half), col_keys_.transpose(1, 2))};
}

std::pair<at::Tensor, at::Tensor> EagerSide::retrieve(const at::Tensor& x) const {
  const std::int64_t k = sizes_.top_k;
  const auto [row_scores, col_scores] = scores(x);
  const auto [rows, row_ids] = at::topk(row_scores, k);  // (H, B, K)
  const auto [cols, col_ids] = at::topk(col_scores, k);
  const at::Tensor sums = (rows.unsqueeze(-1) + cols.unsqueeze(-2)).flatten(2);
  const auto [best, pairs] = at::topk(sums, k);
  const at::Tensor ids = row_ids.gather(2, at::floor_divide(pairs, k)) * sizes_.side +
                         col_ids.gather(2, at::remainder(pairs, k));
  return {ids.transpose(0, 1), best.transpose(0, 1)};
}

at::Tensor EagerSide::run(const at::Tensor& x) const {
  const std::int64_t tokens = x.size(0);
  const auto [ids, best] = retrieve(x);
  const at::Tensor weights = at::softmax(best, -1).reshape({tokens, sizes_.slots()});
  const at::Tensor flat = ids.reshape({tokens, sizes_.slots()});
  const at::Tensor u = at::embedding(u_, flat, -1, false, /*sparse=*/true);  // (B, S, d)
  const at::Tensor v = at::embedding(v_, flat, -1, false, /*sparse=*/true);
  const at::Tensor hidden =
      at::gelu(at::bmm(u, x.to(u.device()).unsqueeze(2)).squeeze(2)) * weights;
  return at::bmm(hidden.unsqueeze(1), v).squeeze(1);
}

at::Tensor EagerSide::forward(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  return run(x);
}

void EagerSide::clear_gradients() {
  for (at::Tensor* tensor : {&query_, &row_keys_, &col_keys_, &u_, &v_}) {
    tensor->mutable_grad() = at::Tensor();
  }
}

void EagerSide::backward(const at::Tensor& x, const at::Tensor& dy) {
  clear_gradients();
  run(x.detach().to(u_.device()).requires_grad_()).backward(dy.to(u_.device()));
}

void EagerSide::update(at::Tensor& rows, Moments& moments) const {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
  const at::Tensor gradient = rows.grad().coalesce();
  const at::Tensor ids = gradient.indices()[0];
  const at::Tensor g = gradient.values();
  const at::Tensor m = moments.m.index_select(0, ids).mul_(kBeta1).add_(g, 1 - kBeta1);
  const at::Tensor v = moments.v.index_select(0, ids).mul_(kBeta2).addcmul_(g, g, 1 - kBeta2);
  moments.m.index_copy_(0, ids, m);
  moments.v.index_copy_(0, ids, v);
  const auto steps = static_cast<double>(steps_);
  const at::Tensor denominator =
      v.div(1 - std::pow(kBeta2, steps)).sqrt_().add_(kEps).mul_(1 - std::pow(kBeta1, steps));
  rows.index_add_(0, ids, at::div(m, denominator), -kLearningRate);
}

void EagerSide::step(const at::Tensor& x, const at::Tensor& dy) {
  backward(x, dy);
  {
    const at::NoGradGuard no_grad;
    ++steps_;
    update(u_, u_moments_);
    update(v_, v_moments_);
  }
  dense_->step();
}

void require_equal_forward(OurSide& ours, EagerSide& eager, const at::Tensor& x, double tolerance) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = ours.layer().retrieve(x, 0).ids.cpu();  // (B, H, K)
  const std::int64_t side = ours.sizes().side;
  const at::Tensor flat = ids.bitwise_right_shift(32) * side + ids.bitwise_and(0xffffffff);
  const at::Tensor theirs = eager.retrieve(x).first.cpu();
  const at::Tensor same =
      (std::get<0>(flat.sort(-1)) == std::get<0>(theirs.sort(-1))).flatten(1).all(-1);  // (B)
  require_share("retrieved experts", same.to(at::kFloat).mean().item<double>(), 0.98);
  const at::Tensor tokens = same.nonzero().squeeze(1);
  require_share("outputs",
                share_close(ours.forward(x).cpu().index_select(0, tokens),
                            eager.forward(x).cpu().index_select(0, tokens), tolerance),
                1.0);
}

void require_equal_step(OurSide& ours, EagerSide& eager, const at::Tensor& x) {
  const at::Tensor dy = at::ones_like(x);
  ours.step(x, dy);
  eager.step(x, dy);
  const CompactGradient gradient = [&] {
    // The ids only: experts the batch retrieves again.
    ours.backward(x, dy);
    return ours.layer().pool().compact_gradient();
  }();
  ours.clear_gradients();
  eager.clear_gradients();
  const at::NoGradGuard no_grad;
  const at::Tensor host = gradient.ids.cpu();
  const std::span<const std::int64_t> ids(host.const_data_ptr<std::int64_t>(),
                                          static_cast<std::size_t>(host.numel()));
  const ExpertValues values = ours.layer().pool().experts_at({ids.begin(), ids.end()});
  const at::Tensor flat =
      host.bitwise_right_shift(32) * ours.sizes().side + host.bitwise_and(0xffffffff);
  // The first step of Adam is the learning rate times the sign of the gradient: a step is judged by
  // what it left, to a small part of that. Gradients near 0 may have either sign.
  const auto share = [&](const at::Tensor& a, const at::Tensor& b) {
    return (a - b.detach().cpu().index_select(0, flat))
        .abs()
        .lt(0.1 * kLearningRate)
        .to(at::kDouble)
        .mean();
  };
  require_share("stepped u", share(values.u, eager.u()).item<double>(), 0.98);
  require_share("stepped v", share(values.v, eager.v()).item<double>(), 0.98);
}

}  // namespace perennial::bench
