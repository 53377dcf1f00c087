// SPDX-License-Identifier: Apache-2.0
// The PEER layer in plain double-precision loops, with the retrieved ids held fixed: the oracle of
// the module's value and, by central differences, of its gradients.
// Symbols: B tokens, H heads, K top-k, D = d_key / 2, C = H d_key, N_r row keys, N_c column keys.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "perennial/core/peer.h"

namespace perennial::testing {

class PeerOracle {
 public:
  // Copies a layer of one generation (or one shared router) and the input x: (B, d_in). In
  // `training`, batch norm uses the batch's statistics. Retrieves by its own scores; the ids then
  // stay fixed, whatever happens to the values.
  PeerOracle(PeerImpl& peer, const at::Tensor& x, bool training);

  // y: (B, d_out)
  std::vector<double> forward() const;
  const std::vector<std::int64_t>& ids() const { return ids_; }  // (B, H, K)

  // Names: "x", "query", "gamma", "beta", "row_keys", "col_keys". An expert's is its id in decimal:
  // u, v, then w with GLU, as Pool::experts_at().
  std::map<std::string, std::vector<double>> values;

  // Factor of each slot's weight, (B, H, K): what dropout makes of it. Empty: 1.
  std::vector<double> slot_factors;

  // d(sum of dy y) / d value of every element of `name`, by central differences.
  std::vector<double> gradient(const std::string& name, const std::vector<double>& dy);

 private:
  std::vector<double> normed_query() const;  // (B, C)
  void retrieve();

  PeerOptions options_;
  bool batch_statistics_ = false;
  std::int64_t tokens_ = 0, row_keys_ = 0, col_keys_ = 0;
  std::vector<double> mean_, var_;
  std::vector<std::int64_t> ids_;
};

std::vector<double> to_doubles(const at::Tensor& tensor);

}  // namespace perennial::testing
