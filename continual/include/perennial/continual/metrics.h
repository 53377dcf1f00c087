// SPDX-License-Identifier: Apache-2.0
// The score matrix of a run, and the metrics of continual learning taken from it.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/task_kind.h"

namespace perennial::continual {

// What a run of T experiences scored: rows 0 .. T, columns 0 .. T-1. Row i is taken after learning
// i experiences (row 0 is before any training), column j is the test set of experience j as Stream
// numbers them. A score is a finite number of which more is better, as the run's task judges:
// accuracies are fractions. A row that was never evaluated is absent, and so are cells of test sets
// that were not there yet when a row was taken. Value type, thread-compatible.
class ScoreMatrix {
 public:
  // T >= 1.
  explicit ScoreMatrix(std::int64_t experiences);

  std::int64_t experiences() const { return experiences_; }
  // T finite scores; replaces the row. Throws Error when they are not.
  void set_row(std::int64_t row, std::vector<double> scores);
  bool has_row(std::int64_t row) const;
  bool has(std::int64_t row, std::int64_t column) const;
  // Adds an experience: a row without cells, and a column whose cells of the rows so far are
  // absent. set() fills one in, clear() makes one absent.
  void extend();
  void set(std::int64_t row, std::int64_t column, double score);
  void clear(std::int64_t row, std::int64_t column);
  double at(std::int64_t row, std::int64_t column) const;  // throws Error when absent

  // (T+1) x T array of arrays; absent rows and cells are null.
  boost::json::value to_json() const;
  // Throws DataError when `value` is not what to_json makes.
  static ScoreMatrix from_json(const boost::json::value& value);

 private:
  double& cell(std::int64_t row, std::int64_t column);

  std::int64_t experiences_;
  std::vector<std::vector<double>> rows_;  // NaN where a cell is absent
};

// The metrics, in the papers' numbering: a[i][j] is the score on experience j after learning
// experience i, i and j from 1 (at(i, j - 1) above), and a[0] is before any training.
// Each is empty when a cell it needs is absent, or T is too small for it; a maximum is over the
// cells that are there. T experiences.
// acc = (1/T) sum_j a[T][j]                                       (Lopez-Paz & Ranzato 2017)
std::optional<double> acc(const ScoreMatrix& a);
// bwt.gem = 1/(T-1) sum_{i<T} (a[T][i] - a[i][i])                  (same)
std::optional<double> bwt_gem(const ScoreMatrix& a);
// fwt.gem = 1/(T-1) sum_{i>=2} (a[i-1][i] - a[0][i])               (same)
std::optional<double> fwt_gem(const ScoreMatrix& a);
// bwt.diaz = sum_{i>=2} sum_{j<i} (a[i][j] - a[j][j]) / (T(T-1)/2) (Diaz-Rodriguez 2018)
std::optional<double> bwt_diaz(const ScoreMatrix& a);
// forgetting.chaudhry = 1/(T-1) sum_{j<T} (max_{1<=l<T} a[l][j] - a[T][j])  (Chaudhry 2018)
std::optional<double> forgetting_chaudhry(const ScoreMatrix& a);
// forgetting.first_last = 1/(T-1) sum_{j<T} (a[j][j] - a[T][j])    (Avalanche's)
std::optional<double> forgetting_first_last(const ScoreMatrix& a);
// avg_incremental = (1/T) sum_k (1/k) sum_{j<=k} a[k][j]           (iCaRL 2017)
std::optional<double> avg_incremental(const ScoreMatrix& a);

// intransigence = (1/T) sum_k (a*_k - a[k][k])                      (Chaudhry 2018)
// `joint` is a*: (T) scores of models that learnt jointly. The paper's a*_k is of a model of
// experiences 1..k, so of T models; the last row of one joint run, of all T, is what reports take.
// It knows more than the paper's at every k < T, and shares its capacity among more. Throws Error
// when it has another length.
std::optional<double> intransigence(const ScoreMatrix& a, const std::vector<double>& joint);

// Forgetting of one experience j < T, from 1: max_{1<=l<T} a[l][j] - a[T][j], the terms of
// forgetting.chaudhry; T-1 of them.
std::optional<std::vector<double>> forgetting_by_experience(const ScoreMatrix& a);

// Every metric of the matrix alone under its name, null where empty; acc under the name that its
// task has for it.
boost::json::object all_metrics(const ScoreMatrix& a, TaskKind task = TaskKind::classification);

}  // namespace perennial::continual
