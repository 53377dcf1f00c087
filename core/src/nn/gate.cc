// SPDX-License-Identifier: Apache-2.0
// The analytic gate.
#include "perennial/core/gate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>

#include "perennial/core/dense_state.h"
#include "perennial/kernels/matmul.h"
#include "perennial/kernels/philox.h"

namespace perennial {

namespace json = boost::json;

EnumNames<GateKind> enum_names(GateKind) {
  return {{GateKind::oracle, "oracle"}, {GateKind::none, "none"}, {GateKind::analytic, "analytic"}};
}

namespace {

constexpr const char* kRecord = "gate";
// Words of Philox's counter that the gate's numbers are drawn for.
constexpr std::uint32_t kProjection = 0x47000000, kBias = 0x47000001;

std::string entry(std::size_t generation, const char* what) {
  return "gate/" + std::to_string(generation) + "/" + what;
}

}  // namespace

AnalyticGate::AnalyticGate(std::int64_t d_in, const AnalyticGateOptions& options)
    : d_in_(d_in), options_(options) {
  validate_ranges(options_);
  if (d_in_ < 1) {
    throw InvalidOptions("the gate's d_in is " + std::to_string(d_in_) + "; it must be 1 or more");
  }
  const auto fill = [&](std::uint32_t part, double scale, at::Tensor& tensor) {
    kernels::fill_normal(
        static_cast<std::uint64_t>(options_.gate_seed), 0, 0, part, static_cast<float>(scale),
        {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
  };
  projection_ = at::empty({options_.features, d_in_});
  bias_ = at::empty({options_.features});
  fill(kProjection, 1 / std::sqrt(static_cast<double>(d_in_)), projection_);
  fill(kBias, 1, bias_);
}

void AnalyticGate::add_generation() {
  statistics_.push_back({at::zeros({options_.features, options_.features}, at::kDouble),
                         at::zeros({options_.features}, at::kDouble)});
}

at::Tensor AnalyticGate::random_features(const at::Tensor& x) const {
  if (x.dim() != 2 || x.size(1) != d_in_ || x.scalar_type() != at::kFloat) {
    throw Error("the gate expects float32 (B, " + std::to_string(d_in_) + "), not " +
                std::string(c10::toString(x.scalar_type())) + " " + c10::str(x.sizes()));
  }
  const at::Tensor rows = x.contiguous();
  at::Tensor features = at::empty({x.size(0), options_.features});
  const float* in = rows.const_data_ptr<float>();
  float* out = features.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0), 16, [&](auto begin, auto end) {
    kernels::matmul_nt(end - begin, options_.features, d_in_, in + begin * d_in_, d_in_,
                       projection_.const_data_ptr<float>(), d_in_, bias_.const_data_ptr<float>(),
                       out + begin * options_.features, options_.features);
  });
  return features.relu_();
}

void AnalyticGate::observe(const at::Tensor& x, std::int64_t generation) {
  const at::NoGradGuard no_grad;
  if (generation < 0 || generation >= generations()) {
    throw Error("generation " + std::to_string(generation) + " is unknown to the gate, which has " +
                std::to_string(generations()));
  }
  Statistics& statistics = statistics_[static_cast<std::size_t>(generation)];
  const at::Tensor f = random_features(x).to(at::kDouble);
  // Sums never forget: one such number would spoil every later answer.
  if (!std::isfinite(f.sum().item<double>())) {
    throw DataError("an input of generation " + std::to_string(generation) + " is not finite");
  }
  statistics.a.addmm_(f.t(), f);
  statistics.b.add_(f.sum(0));
  statistics.observed = true;
  statistics.changed = true;
  weights_ = at::Tensor();
}

void AnalyticGate::solve() {
  if (weights_.defined()) return;
  if (statistics_.empty()) throw Error("the gate has seen no generation");
  const at::NoGradGuard no_grad;
  at::Tensor a = at::zeros({options_.features, options_.features}, at::kDouble);
  std::vector<at::Tensor> b;
  for (const Statistics& statistics : statistics_) {
    a.add_(statistics.a);
    b.push_back(statistics.b);
  }
  a.diagonal().add_(options_.ridge);
  weights_ =
      at::cholesky_solve(at::stack(b, 1), at::linalg_cholesky(a)).t().to(at::kFloat).contiguous();
}

at::Tensor AnalyticGate::scores(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  solve();
  const at::Tensor f = random_features(x);
  at::Tensor scores = at::empty({x.size(0), generations()});
  at::parallel_for(0, x.size(0), 64, [&](auto begin, auto end) {
    kernels::matmul_nt(end - begin, generations(), options_.features,
                       f.const_data_ptr<float>() + begin * options_.features, options_.features,
                       weights_.const_data_ptr<float>(), options_.features, nullptr,
                       scores.mutable_data_ptr<float>() + begin * generations(), generations());
  });
  return scores;
}

at::Tensor AnalyticGate::choose(const at::Tensor& x) {
  const at::Tensor all = scores(x);
  at::Tensor chosen = at::empty({x.size(0)}, at::kLong);
  const float* row = all.const_data_ptr<float>();
  for (std::int64_t i = 0; i < x.size(0); ++i, row += generations()) {
    std::int64_t best = -1;
    for (std::int64_t g = 0; g < generations(); ++g) {
      if (!statistics_[static_cast<std::size_t>(g)].observed) continue;
      if (best < 0 || row[g] > row[best]) best = g;
    }
    chosen.mutable_data_ptr<std::int64_t>()[i] = std::max<std::int64_t>(best, 0);
  }
  return chosen;
}

void AnalyticGate::add_to_commit(storage::CommitRequest& request) {
  request.dense[kRecord] = bytes_from(json::serialize(json::object{
      {"options", to_json(options_)}, {"d_in", d_in_}, {"generations", generations()}}));
  for (std::size_t g = 0; g < statistics_.size(); ++g) {
    if (!statistics_[g].changed && !statistics_[g].offered) continue;
    statistics_[g].changed = false;
    statistics_[g].offered = true;
    request.dense[entry(g, "a")] = bytes_from(statistics_[g].a);
    request.dense[entry(g, "b")] = bytes_from(statistics_[g].b);
  }
}

void AnalyticGate::commit_failed() {
  for (Statistics& statistics : statistics_) {
    statistics.changed = statistics.changed || std::exchange(statistics.offered, false);
  }
}

void AnalyticGate::committed() {
  for (Statistics& statistics : statistics_) statistics.offered = false;
}

AnalyticGate AnalyticGate::load(const storage::PageReader& store) {
  const std::string text = text_from(value_or_throw(store.read_dense(kRecord)));
  try {
    const json::object record = json::parse(text).as_object();
    AnalyticGate gate(json::value_to<std::int64_t>(record.at("d_in")),
                      from_json<AnalyticGateOptions>(record.at("options").as_object()));
    const auto generations = json::value_to<std::size_t>(record.at("generations"));
    for (std::size_t g = 0; g < generations; ++g) {
      gate.add_generation();
      Statistics& statistics = gate.statistics_.back();
      const auto read = [&](const char* what, at::Tensor& tensor) {
        const std::string name = entry(g, what);
        at::Tensor stored = tensor_from(value_or_throw(store.read_dense(name)), name);
        if (stored.sizes() != tensor.sizes() || stored.scalar_type() != at::kDouble) {
          throw DataError("dense entry '" + name + "' has another shape than its gate");
        }
        tensor = stored;
      };
      read("a", statistics.a);
      read("b", statistics.b);
      statistics.observed = statistics.b.any().item<bool>();
      statistics.changed = false;
    }
    return gate;
  } catch (const InvalidOptions& error) {
    throw DataError(std::string("the store's record of the gate is malformed: ") + error.what());
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError(std::string("the store's record of the gate is malformed: ") + error.what());
  }
}

}  // namespace perennial
