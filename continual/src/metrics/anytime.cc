// SPDX-License-Identifier: Apache-2.0
// The metrics of a run's anytime curve.
#include "perennial/continual/anytime.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <numeric>
#include <string>

#include "metrics/json_values.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// The end of experience k, or null.
const AnytimePoint* end_of(const AnytimeCurve& curve, std::int64_t k) {
  for (const AnytimePoint& point : curve.points) {
    if (point.end && point.experience == k) return &point;
  }
  return nullptr;
}

}  // namespace

double AnytimePoint::mean() const {
  return std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
}

json::object point_json(const AnytimePoint& point, TaskKind task) {
  return {{"experience", point.experience},
          {"minibatch", point.minibatch},
          {"steps", point.steps},
          {"end", point.end},
          {score_names(task).values, json::array(point.scores.begin(), point.scores.end())}};
}

bool AnytimeCurve::regular(const AnytimePoint& point) const {
  return options.anytime_every > 0 && !point.end && point.minibatch > 0 &&
         point.steps % options.anytime_every == 0;
}

json::object AnytimeCurve::to_json() const {
  json::array all;
  for (const AnytimePoint& point : points) all.push_back(point_json(point, task));
  return {{"every", options.anytime_every},
          {"first", options.anytime_first},
          {"examples", options.anytime_examples},
          {"points", std::move(all)}};
}

std::optional<double> anytime(const AnytimeCurve& curve) {
  double sum = 0;
  std::int64_t n = 0;
  for (const AnytimePoint& point : curve.points) {
    if (!curve.regular(point)) continue;
    sum += point.mean();
    ++n;
  }
  return n > 0 ? std::optional(sum / static_cast<double>(n)) : std::nullopt;
}

std::optional<double> lca(const AnytimeCurve& curve, std::int64_t beta) {
  if (beta < 0 || curve.experiences != curve.test_sets) return std::nullopt;
  double sum = 0;
  std::vector<bool> taken(static_cast<std::size_t>((beta + 1) * curve.experiences));
  for (const AnytimePoint& point : curve.points) {
    if (point.end || point.minibatch > beta) continue;
    sum += point.scores.at(static_cast<std::size_t>(point.experience - 1));
    taken[static_cast<std::size_t>((point.experience - 1) * (beta + 1) + point.minibatch)] = true;
  }
  if (!std::all_of(taken.begin(), taken.end(), [](bool was) { return was; })) return std::nullopt;
  return sum / static_cast<double>(taken.size());
}

std::optional<double> min_acc(const AnytimeCurve& curve, std::int64_t k) {
  if (k < 2 || curve.experiences != curve.test_sets) return std::nullopt;
  double sum = 0;
  for (std::int64_t i = 1; i < k; ++i) {
    const AnytimePoint *from = end_of(curve, i), *to = end_of(curve, k);
    if (from == nullptr || to == nullptr) return std::nullopt;
    double worst = 1;
    for (const AnytimePoint* point = from + 1; point <= to; ++point) {
      worst = std::min(worst, point->scores.at(static_cast<std::size_t>(i - 1)));
    }
    sum += worst;
  }
  return sum / static_cast<double>(k - 1);
}

std::optional<double> wc_acc(const AnytimeCurve& curve, std::int64_t k) {
  const AnytimePoint* end = end_of(curve, k);
  if (end == nullptr || curve.experiences != curve.test_sets) return std::nullopt;
  const double own = end->scores.at(static_cast<std::size_t>(k - 1));
  if (k == 1) return own;
  const std::optional<double> worst = min_acc(curve, k);
  if (!worst) return std::nullopt;
  const double share = 1 / static_cast<double>(k);
  return share * own + (1 - share) * *worst;
}

json::object all_metrics(const AnytimeCurve& curve) {
  const bool first = curve.options.anytime_first > 0;
  const std::string metric = score_names(curve.task).metric;
  return {{"lca", or_null(first ? lca(curve, curve.options.anytime_first) : std::nullopt)},
          {"anytime", or_null(anytime(curve))},
          {"min_" + metric, or_null(min_acc(curve, curve.test_sets))},
          {"wc_" + metric, or_null(wc_acc(curve, curve.test_sets))}};
}

}  // namespace perennial::continual
