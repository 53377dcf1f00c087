// SPDX-License-Identifier: Apache-2.0
// The analytic gate.
#include "perennial/core/gate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <boost/json/value_from.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "nn/batch_invariant.h"
#include "nn/gate_answers.h"
#include "nn/record_names.h"
#include "nn/ridge.h"
#include "perennial/core/dense_state.h"
#include "record.h"

namespace perennial {

namespace json = boost::json;

EnumNames<GateKind> enum_names(GateKind) {
  return {{GateKind::oracle, "oracle"},
          {GateKind::none, "none"},
          {GateKind::analytic, "analytic"},
          {GateKind::autoencoder, "autoencoder"}};
}

EnumNames<GateAnswer> enum_names(GateAnswer) {
  return {{GateAnswer::hard, "hard"}, {GateAnswer::mixed, "mixed"}};
}

namespace {

constexpr const char* kUnlearnedList = "unlearned";  // generations; absent where there are none

FixedFeatureOptions features_of(const AnalyticGateOptions& options) {
  validate_ranges(options);
  return {.kind = options.gate_features,
          .count = options.features,
          .filters = options.gate_filters,
          .filter_size = options.gate_filter_size,
          .grid = options.gate_grid,
          .seed = options.gate_seed};
}

}  // namespace

AnalyticGate::AnalyticGate(std::int64_t d_in, const AnalyticGateOptions& options,
                           std::int64_t classes, ImageShape image)
    : d_in_(d_in),
      options_(options),
      classes_(options.head_weight > 0 ? classes : 0),
      image_(image),
      features_(d_in, image, features_of(options)) {
  if (options_.head_weight > 0 && classes < 1) {
    throw InvalidOptions("head_weight needs classes; the gate was given none");
  }
}

void AnalyticGate::add_generation() {
  const std::int64_t m = features_.size();
  Statistics statistics;
  statistics.a = at::zeros({m, m}, at::kDouble);
  statistics.b = at::zeros({m}, at::kDouble);
  if (has_heads()) statistics.c = at::zeros({m, classes_}, at::kDouble);
  statistics_.push_back(std::move(statistics));
  weights_ = at::Tensor();  // it has a row a generation
}

const AnalyticGate::Statistics& AnalyticGate::of(std::int64_t generation) const {
  if (generation < 0 || generation >= generations()) {
    throw_unknown_generation(generation, generations());
  }
  if (statistics_[static_cast<std::size_t>(generation)].unlearned) {
    throw Error("generation " + std::to_string(generation) +
                " was unlearned; the gate knows nothing of it");
  }
  return statistics_[static_cast<std::size_t>(generation)];
}

void AnalyticGate::observe(const at::Tensor& x, std::int64_t generation, const at::Tensor& y) {
  const at::NoGradGuard no_grad;
  (void)of(generation);
  Statistics& statistics = statistics_[static_cast<std::size_t>(generation)];
  if (has_heads() && (!y.defined() || y.dim() != 1 || y.size(0) != x.size(0))) {
    throw Error("the gate's class heads need a class for each input");
  }
  const at::Tensor f = features_(x).to(at::kDouble);
  // Sums never forget: one such number would spoil every later answer.
  if (!std::isfinite(f.sum().item<double>())) {
    throw DataError("an input of generation " + std::to_string(generation) + " is not finite");
  }
  statistics.a.addmm_(f.t(), f);
  statistics.b.add_(f.sum(0));
  if (has_heads()) {
    statistics.c.addmm_(f.t(), at::one_hot(y, classes_).to(at::kDouble));
    statistics.head = at::Tensor();
  }
  statistics.count += x.size(0);
  statistics.observed = true;
  weights_ = at::Tensor();
  ridge_.reset();
  if (static_cast<std::size_t>(generation) < older_) {
    older_ = 0;
    older_a_ = at::Tensor();
  }
}

std::int64_t AnalyticGate::oldest_kept() const {
  for (std::size_t g = 0; g < statistics_.size(); ++g) {
    if (!statistics_[g].unlearned) return static_cast<std::int64_t>(g);
  }
  return 0;
}

at::Tensor AnalyticGate::sum_of_a() const {
  if (!older_a_.defined()) {
    older_a_ = at::zeros({features_.size(), features_.size()}, at::kDouble);
  }
  for (; older_ + 1 < statistics_.size(); ++older_) {
    if (statistics_[older_].a.defined()) older_a_.add_(statistics_[older_].a);
  }
  const at::Tensor& newest = statistics_.back().a;
  return newest.defined() && older_ + 1 == statistics_.size() ? older_a_.add(newest) : older_a_;
}

at::Tensor AnalyticGate::columns_of_b() const {
  std::vector<at::Tensor> b;
  for (const Statistics& statistics : statistics_) {
    b.push_back(statistics.unlearned ? at::zeros({features_.size()}, at::kDouble) : statistics.b);
  }
  return at::stack(b, 1);
}

double AnalyticGate::ridge() const {
  if (options_.ridge > 0) return options_.ridge;
  if (!ridge_) {
    const at::NoGradGuard no_grad;
    RidgeSums sums;
    for (const Statistics& statistics : statistics_) sums.n += statistics.count;
    if (sums.n > 0) {
      sums.a = sum_of_a();
      sums.b = columns_of_b();
    }
    ridge_ = choose_ridge(sums);
  }
  return *ridge_;
}

double AnalyticGate::ridge_of(const Statistics& statistics) const {
  if (options_.ridge > 0) return options_.ridge;
  return choose_ridge({statistics.a, statistics.c, statistics.count});
}

void AnalyticGate::close() {
  const bool any = std::any_of(statistics_.begin(), statistics_.end(),
                               [](const Statistics& statistics) { return statistics.observed; });
  if (any) solve();
}

void AnalyticGate::solve() {
  if (weights_.defined()) return;
  if (statistics_.empty()) throw Error("the gate has seen no generation");
  const at::NoGradGuard no_grad;
  weights_ = ridge_weights(sum_of_a(), ridge(), columns_of_b());
}

at::Tensor AnalyticGate::scores_of(const at::Tensor& f) {
  const at::NoGradGuard no_grad;
  solve();
  return rows_times(f, weights_);
}

at::Tensor AnalyticGate::class_scores_of(const at::Tensor& f, std::int64_t generation) {
  const at::NoGradGuard no_grad;
  if (!has_heads()) throw Error("the gate has no class heads; it was made with head_weight 0");
  (void)of(generation);
  Statistics& statistics = statistics_[static_cast<std::size_t>(generation)];
  if (!statistics.head.defined()) {
    statistics.head = ridge_weights(statistics.a, ridge_of(statistics), statistics.c);
  }
  return rows_times(f, statistics.head);
}

double AnalyticGate::novelty(const at::Tensor& x, std::int64_t generation) const {
  const at::NoGradGuard no_grad;
  if (generation >= 0 && generation < generations() &&
      statistics_[static_cast<std::size_t>(generation)].unlearned) {
    return std::numeric_limits<double>::infinity();
  }
  const Statistics& statistics = of(generation);
  if (statistics.count == 0) return std::numeric_limits<double>::infinity();
  const double strength = ridge();
  const at::Tensor lower = ridge_factor(statistics.a, strength);
  const at::Tensor f = features_(x).to(at::kDouble);
  const auto mean_leverage = [&](const at::Tensor& columns) {
    return at::linalg_solve_triangular(lower, columns, /*upper=*/false).square().sum();
  };
  const double here = mean_leverage(f.t()).item<double>() / static_cast<double>(x.size(0));
  // tr((A + rI)^-1 A) = M - r tr((A + rI)^-1), and tr(L^-T L^-1) is L^-1's sum of squares.
  const std::int64_t m = features_.size();
  const double trace =
      static_cast<double>(m) - strength * mean_leverage(at::eye(m, at::kDouble)).item<double>();
  return here / (trace / static_cast<double>(statistics.count));
}

GateCandidates AnalyticGate::who_answers() const {
  GateCandidates who{{}, oldest_kept()};
  for (const Statistics& statistics : statistics_) who.candidates.push_back(statistics.observed);
  return who;
}

at::Tensor AnalyticGate::shares_of(const at::Tensor& f) {
  return shares_of_candidates(scores_of(f), who_answers(), options_.gate_temperature);
}

at::Tensor AnalyticGate::choose_of(const at::Tensor& f) {
  return best_candidate(scores_of(f), who_answers());
}

void AnalyticGate::add_to_commit(storage::CommitRequest& request) {
  json::array counts, unlearned;
  for (std::size_t g = 0; g < statistics_.size(); ++g) {
    counts.push_back(statistics_[g].count);
    if (statistics_[g].unlearned) unlearned.push_back(g);
  }
  json::object record{{"options", to_json(options_)},
                      {"d_in", d_in_},
                      {"generations", generations()},
                      {"counts", std::move(counts)}};
  if (has_heads()) record["classes"] = classes_;
  if (image_.rows > 0) record["image"] = json::array{image_.rows, image_.cols};
  if (!unlearned.empty()) record[kUnlearnedList] = std::move(unlearned);
  DenseEntries::Offer offer = entries_.offer(request);
  offer.bytes(kGateRecord, bytes_from(record_text(record)));
  for (std::size_t g = 0; g < statistics_.size(); ++g) {  // undefined ones are no entries
    offer.tensor(gate_entry(g, "a"), statistics_[g].a);
    offer.tensor(gate_entry(g, "b"), statistics_[g].b);
    offer.tensor(gate_entry(g, "c"), statistics_[g].c);
  }
}

AnalyticGate AnalyticGate::load(const storage::PageReader& store) {
  const storage::Bytes bytes = value_or_throw(store.read_dense(kGateRecord));
  const json::object record = parse_record(kGateRecord, bytes);
  std::size_t generations = 0;
  std::set<std::size_t> unlearned;
  std::vector<std::int64_t> counts;  // absent from the records of older versions
  AnalyticGate gate = from_record(kGateRecord, [&] {
    generations = json::value_to<std::size_t>(record.at("generations"));
    if (const json::value* list = record.if_contains(kUnlearnedList)) {
      unlearned = json::value_to<std::set<std::size_t>>(*list);
    }
    if (const json::value* list = record.if_contains("counts")) {
      counts = json::value_to<std::vector<std::int64_t>>(*list);
      if (counts.size() < generations) throw Error("a generation has no count");
    }
    ImageShape image;
    if (const json::value* shape = record.if_contains("image")) {
      image = {shape->at(0).as_int64(), shape->at(1).as_int64()};
    }
    const json::value* classes = record.if_contains("classes");
    return AnalyticGate(json::value_to<std::int64_t>(record.at("d_in")),
                        from_json<AnalyticGateOptions>(record.at("options").as_object()),
                        classes == nullptr ? 0 : classes->as_int64(), image);
  });
  for (std::size_t g = 0; g < generations; ++g) {
    if (unlearned.contains(g)) {
      gate.statistics_.emplace_back();
      gate.statistics_.back().unlearned = true;
      continue;
    }
    gate.add_generation();
    Statistics& statistics = gate.statistics_.back();
    const auto read = [&](const char* what, at::Tensor& tensor) {
      tensor = tensor_like(store, gate_entry(g, what), tensor, "gate");
      gate.entries_.stored(gate_entry(g, what), tensor);
    };
    read("a", statistics.a);
    read("b", statistics.b);
    if (gate.has_heads()) read("c", statistics.c);
    if (!counts.empty()) statistics.count = counts[g];
    statistics.observed = statistics.b.any().item<bool>();
  }
  gate.entries_.stored(kGateRecord, bytes);
  return gate;
}

bool AnalyticGate::stored_in(const storage::PageReader& store) {
  return store.dense_size(kGateRecord).ok();
}

void AnalyticGate::drop_generations_from(const storage::PageReader& store, std::uint32_t keep,
                                         storage::CommitRequest& request) {
  edit_record(store, kGateRecord, request, [&](json::object& record) {
    for (auto g = json::value_to<std::size_t>(record.at("generations")); g-- > keep;) {
      remove_entries(store, gate_entry(g, ""), request);
    }
    record.at("generations") = keep;
    if (json::value* counts = record.if_contains("counts")) counts->as_array().resize(keep);
    if (json::value* unlearned = record.if_contains(kUnlearnedList)) {
      json::array kept;
      for (const json::value& g : unlearned->as_array()) {
        if (json::value_to<std::uint32_t>(g) < keep) kept.push_back(g);
      }
      if (kept.empty()) {
        record.erase(kUnlearnedList);
      } else {
        *unlearned = std::move(kept);
      }
    }
  });
}

void AnalyticGate::drop_generation(const storage::PageReader& store, std::uint32_t generation,
                                   storage::CommitRequest& request) {
  remove_entries(store, gate_entry(generation, ""), request);
  edit_record(store, kGateRecord, request, [&](json::object& record) {
    if (json::value* counts = record.if_contains("counts")) {
      counts->as_array().at(generation) = std::int64_t{0};
    }
    std::set<std::uint32_t> unlearned;
    if (const json::value* before = record.if_contains(kUnlearnedList)) {
      unlearned = json::value_to<std::set<std::uint32_t>>(*before);
    }
    unlearned.insert(generation);
    record[kUnlearnedList] = json::value_from(unlearned);
  });
}

}  // namespace perennial
