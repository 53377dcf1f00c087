// SPDX-License-Identifier: Apache-2.0
// The score matrix and its metrics.
#include "perennial/continual/metrics.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "metrics/json_values.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

void check_score(double score) {
  if (std::isfinite(score)) return;
  throw Error("score " + std::to_string(score) + " is not a finite number");
}

// a[i][j] in the papers' numbering: j from 1. kAbsent, and with it every sum, where it is not
// there.
double cell(const ScoreMatrix& a, std::int64_t i, std::int64_t j) {
  return a.has(i, j - 1) ? a.at(i, j - 1) : kAbsent;
}

std::optional<double> unless_absent(double metric) {
  return std::isnan(metric) ? std::nullopt : std::optional(metric);
}

}  // namespace

ScoreMatrix::ScoreMatrix(std::int64_t experiences) : experiences_(experiences) {
  if (experiences < 1) {
    throw Error("a score matrix of " + std::to_string(experiences) + " experiences");
  }
  rows_.resize(static_cast<std::size_t>(experiences) + 1);
}

void ScoreMatrix::set_row(std::int64_t row, std::vector<double> scores) {
  if (row < 0 || row > experiences_) {
    throw Error("row " + std::to_string(row) + " of a score matrix with rows 0 to " +
                std::to_string(experiences_));
  }
  if (std::ssize(scores) != experiences_) {
    throw Error("a row of " + std::to_string(scores.size()) + " scores for " +
                std::to_string(experiences_) + " experiences");
  }
  for (const double score : scores) check_score(score);
  rows_[static_cast<std::size_t>(row)] = std::move(scores);
}

bool ScoreMatrix::has_row(std::int64_t row) const {
  return row >= 0 && row <= experiences_ && !rows_[static_cast<std::size_t>(row)].empty();
}

bool ScoreMatrix::has(std::int64_t row, std::int64_t column) const {
  return has_row(row) && column >= 0 && column < experiences_ &&
         !std::isnan(rows_[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)]);
}

void ScoreMatrix::extend() {
  ++experiences_;
  for (std::vector<double>& row : rows_) {
    if (!row.empty()) row.push_back(kAbsent);
  }
  rows_.emplace_back();
}

double& ScoreMatrix::cell(std::int64_t row, std::int64_t column) {
  if (!has_row(row) || column < 0 || column >= experiences_) {
    throw Error("row " + std::to_string(row) + " of the score matrix has no column " +
                std::to_string(column));
  }
  return rows_[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
}

void ScoreMatrix::set(std::int64_t row, std::int64_t column, double score) {
  check_score(score);
  cell(row, column) = score;
}

void ScoreMatrix::clear(std::int64_t row, std::int64_t column) { cell(row, column) = kAbsent; }

double ScoreMatrix::at(std::int64_t row, std::int64_t column) const {
  if (!has(row, column)) {
    throw Error("the score of experience " + std::to_string(column) + " after " +
                std::to_string(row) + " learnt was not evaluated");
  }
  return rows_[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
}

boost::json::value ScoreMatrix::to_json() const {
  boost::json::array rows;
  for (const std::vector<double>& row : rows_) {
    if (row.empty()) {
      rows.emplace_back(nullptr);
    } else {
      boost::json::array cells;
      for (const double score : row) {
        cells.push_back(std::isnan(score) ? boost::json::value(nullptr)
                                          : boost::json::value(score));
      }
      rows.emplace_back(std::move(cells));
    }
  }
  return rows;
}

ScoreMatrix ScoreMatrix::from_json(const boost::json::value& value) {
  if (!value.is_array() || value.get_array().size() < 2) {
    throw DataError("a score matrix must be an array of at least 2 rows");
  }
  const boost::json::array& rows = value.get_array();
  ScoreMatrix matrix(static_cast<std::int64_t>(rows.size()) - 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].is_null()) continue;
    if (!rows[i].is_array()) throw DataError("a row of a score matrix must be an array or null");
    std::vector<double> row;
    std::vector<std::int64_t> absent;
    for (const boost::json::value& cell : rows[i].get_array()) {
      if (cell.is_null()) absent.push_back(std::ssize(row));
      if (!cell.is_null() && !cell.is_number()) {
        throw DataError("a score must be a number or null");
      }
      row.push_back(cell.is_null() ? 0 : cell.to_number<double>());
    }
    try {
      matrix.set_row(static_cast<std::int64_t>(i), std::move(row));
      for (const std::int64_t column : absent) matrix.clear(static_cast<std::int64_t>(i), column);
    } catch (const Error& error) {
      throw DataError(std::string("stored score matrix: ") + error.what());
    }
  }
  return matrix;
}

std::optional<double> acc(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  double sum = 0;
  for (std::int64_t j = 1; j <= T; ++j) sum += cell(a, T, j);
  return unless_absent(sum / static_cast<double>(T));
}

std::optional<double> bwt_gem(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  if (T < 2) return std::nullopt;
  double sum = 0;
  for (std::int64_t i = 1; i < T; ++i) sum += cell(a, T, i) - cell(a, i, i);
  return unless_absent(sum / static_cast<double>(T - 1));
}

std::optional<double> fwt_gem(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  if (T < 2) return std::nullopt;
  double sum = 0;
  for (std::int64_t i = 2; i <= T; ++i) sum += cell(a, i - 1, i) - cell(a, 0, i);
  return unless_absent(sum / static_cast<double>(T - 1));
}

std::optional<double> bwt_diaz(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  if (T < 2) return std::nullopt;
  double sum = 0;
  for (std::int64_t i = 2; i <= T; ++i) {
    for (std::int64_t j = 1; j < i; ++j) sum += cell(a, i, j) - cell(a, j, j);
  }
  return unless_absent(sum / (static_cast<double>(T) * static_cast<double>(T - 1) / 2));
}

std::optional<std::vector<double>> forgetting_by_experience(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  if (T < 2) return std::nullopt;
  std::vector<double> forgetting;
  for (std::int64_t j = 1; j < T; ++j) {
    double best = cell(a, j, j);
    for (std::int64_t l = 1; l < T; ++l) {
      if (a.has(l, j - 1)) best = std::max(best, cell(a, l, j));
    }
    forgetting.push_back(best - cell(a, T, j));
    if (std::isnan(forgetting.back())) return std::nullopt;
  }
  return forgetting;
}

std::optional<double> forgetting_chaudhry(const ScoreMatrix& a) {
  const std::optional<std::vector<double>> terms = forgetting_by_experience(a);
  if (!terms) return std::nullopt;
  return std::accumulate(terms->begin(), terms->end(), 0.0) / static_cast<double>(terms->size());
}

std::optional<double> intransigence(const ScoreMatrix& a, const std::vector<double>& joint) {
  const std::int64_t T = a.experiences();
  if (std::ssize(joint) != T) {
    throw Error("a joint model's " + std::to_string(joint.size()) + " scores for " +
                std::to_string(T) + " experiences");
  }
  double sum = 0;
  for (std::int64_t k = 1; k <= T; ++k) {
    sum += joint[static_cast<std::size_t>(k - 1)] - cell(a, k, k);
  }
  return unless_absent(sum / static_cast<double>(T));
}

std::optional<double> forgetting_first_last(const ScoreMatrix& a) {
  const std::optional<double> transfer = bwt_gem(a);
  return transfer ? std::optional(0 - *transfer) : std::nullopt;
}

std::optional<double> avg_incremental(const ScoreMatrix& a) {
  const std::int64_t T = a.experiences();
  double sum = 0;
  for (std::int64_t k = 1; k <= T; ++k) {
    double seen = 0;
    for (std::int64_t j = 1; j <= k; ++j) seen += cell(a, k, j);
    sum += seen / static_cast<double>(k);
  }
  return unless_absent(sum / static_cast<double>(T));
}

boost::json::object all_metrics(const ScoreMatrix& a, TaskKind task) {
  return {{score_names(task).metric, or_null(acc(a))},
          {"bwt.gem", or_null(bwt_gem(a))},
          {"fwt.gem", or_null(fwt_gem(a))},
          {"bwt.diaz", or_null(bwt_diaz(a))},
          {"forgetting.chaudhry", or_null(forgetting_chaudhry(a))},
          {"forgetting.first_last", or_null(forgetting_first_last(a))},
          {"avg_incremental", or_null(avg_incremental(a))}};
}

}  // namespace perennial::continual
