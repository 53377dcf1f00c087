// SPDX-License-Identifier: Apache-2.0
// Scores while a run learns, on a fixed subset of each test set, and the metrics taken from it.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <vector>

#include "perennial/continual/task_kind.h"
#include "perennial/core/options.h"

namespace perennial::continual {

// When a run evaluates between its experiences, and on how many test examples. Evaluating changes
// no trained bit. Cost: a forward of `anytime_examples` for each experience seen so far, each time.
struct AnytimeOptions {
  std::int64_t anytime_every = 0;
  std::int64_t anytime_first = 0;
  std::int64_t anytime_examples = 250;

  bool on() const { return anytime_every > 0 || anytime_first > 0; }

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("anytime_every", self.anytime_every,
            "steps between evaluations on a fixed part of the test sets seen so far; 0 = none",
            Range{0, 1e9});
    visitor("anytime_first", self.anytime_first,
            "and before and after each of this many first steps of an experience (lca needs its "
            "beta of them); 0 = none",
            Range{0, 1e6});
    visitor("anytime_examples", self.anytime_examples,
            "test examples of that part in each test set, drawn once; 0 = all", Range{0, 1e9});
  }
};

struct AnytimePoint;
// {"experience", "minibatch", "steps", "end", "accuracy"}; the last as the task's scores are called
boost::json::object point_json(const AnytimePoint& point, TaskKind task);

// One evaluation. In the papers' numbering experience k is from 1; b counts the minibatches of k
// that were learnt (0: before its first one).
struct AnytimePoint {
  std::int64_t experience = 0;  // k
  std::int64_t minibatch = 0;   // b
  std::int64_t steps = 0;       // of the whole run
  bool end = false;             // the experience has ended: frozen, its gate solved
  std::vector<double> scores;   // on test sets 1 .. seen
  bool operator==(const AnytimePoint&) const = default;

  double mean() const;
};

// The evaluations of a run in the order they were made. Value type, thread-compatible.
struct AnytimeCurve {
  AnytimeOptions options = {};
  TaskKind task = TaskKind::classification;
  std::int64_t test_sets = 1;    // T
  std::int64_t experiences = 1;  // that are learnt one after the other: T, or 1 of a joint run
  std::vector<AnytimePoint> points = {};

  // True for the points of the regular grid: after each `anytime_every`-th step of the run.
  bool regular(const AnytimePoint& point) const;

  // {"every", "first", "examples", "points": [point_json of each]}
  boost::json::object to_json() const;
};

// A metric is empty when a point that it needs was not taken.
//
// anytime (AAA) = mean over the regular points of the mean score on the experiences seen so far
//                                                                  (Caccia et al. 2022)
std::optional<double> anytime(const AnytimeCurve& curve);
// lca = 1/(beta+1) sum_{b=0..beta} (1/T) sum_k a[k, after b minibatches][k]
//                                                                  (Chaudhry et al. 2019)
std::optional<double> lca(const AnytimeCurve& curve, std::int64_t beta);
// min_acc(k) = 1/(k-1) sum_{i<k} min over the points after i's end, until k's, of the score on i
//                                                                  (De Lange et al. 2023)
// k is from 2; empty unless experience k ended.
std::optional<double> min_acc(const AnytimeCurve& curve, std::int64_t k);
// wc_acc(k) = (1/k) a_k[k] + (1 - 1/k) min_acc(k), a_k[k] at k's end on the same part of the test
// set; wc_acc(1) = a_1[1].                                         (same)
std::optional<double> wc_acc(const AnytimeCurve& curve, std::int64_t k);

// "lca" (beta = anytime_first), "anytime", and "min_acc" and "wc_acc" of k = T, which end in the
// name of the task's metric; null where empty.
boost::json::object all_metrics(const AnytimeCurve& curve);

}  // namespace perennial::continual
