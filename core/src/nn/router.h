// SPDX-License-Identifier: Apache-2.0
// A router: query network, its norm and the sub-keys that turn x into expert ids and scores.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "nn/team_choice.h"
#include "perennial/core/peer.h"
#include "perennial/kernels/retrieve.h"

namespace perennial {

// One per generation (isolated routing) or one per layer (shared). Sub-keys are blocks that are
// appended and never change place: growth keeps every older tensor, and its moments, as they are.
class Router : public torch::nn::Module {
 public:
  // A fresh query network and norm, no keys. `index` tells the routers of a layer apart: it seeds
  // the initial values and names the tensors.
  Router(const PeerOptions& options, std::uint32_t index);

  struct RowBlock {
    std::uint32_t generation = 0;
    std::uint32_t first_row = 0;
    std::uint32_t rows = 0;
    std::uint32_t cols = 0;  // columns its generation has, visible ones
    bool visible = false;
    torch::Tensor keys;  // (H or 1, rows, d_key / 2)
  };

  void add_rows(const Generation& generation, bool visible);
  // Column keys up to `cols` in all; those beyond what older blocks use become visible to the
  // newest block with unmask().
  void add_columns(std::uint32_t cols);
  void unmask(std::uint32_t open_cols);
  bool has_masked() const;
  std::vector<kernels::KeySegment> segments() const;
  std::int64_t visible_experts() const;

  torch::Tensor row_keys() const;  // (H or 1, n_row, d_key / 2)
  torch::Tensor col_keys() const;  // (H or 1, n_col, d_key / 2)
  // The sub-keys as retrieval reads them; without `keys`. Valid until the router is asked again.
  // The panels are kept while nothing can have changed the keys, else packed again. torch counts
  // operations in place as versions, but not what its own optimizers write (torch::optim::SGD does
  // not): so keys that have a gradient, or have had one, count as changed.
  kernels::SubKeys packed_rows() const;
  kernels::SubKeys packed_cols() const;
  // The keys changed, or will, in a way that torch does not count; to be called when a backward
  // gives them a gradient.
  void keys_changed() { row_panels_.trained = col_panels_.trained = true; }

  // Folds batch norm into query and bias and stops every gradient (isolated routing).
  void fold_and_freeze();
  // Stops the gradient of the newest row block (shared routing).
  void freeze_rows();
  // Becomes, in its own tensors, what another router of its place in a layer is. False, and as it
  // was, when that one's tensors have other names or sizes.
  bool assign(const Router& other);
  bool folded() const { return query_bias.defined(); }
  // True where a forward normalises with its batch's own statistics, and the running ones follow.
  bool batch_statistics(bool training) const {
    return training && options_.query_norm == QueryNorm::batch && !folded() && !statistics_held;
  }

  // Every tensor, by a name that is unique in the layer; in the order of names.
  std::vector<std::pair<std::string, torch::Tensor>> tensors() const;
  std::vector<std::pair<std::string, torch::Tensor>> trainable() const;
  // "router_00000/": what the names of its tensors begin with.
  std::string prefix() const { return prefix(index_); }
  static std::string prefix(std::uint32_t index);
  // What a block of column keys is called after the prefix.
  static std::string col_keys_name(std::size_t block);

  torch::Tensor query;                      // (H d_key, d_in)
  torch::Tensor query_bias;                 // (H d_key), once folded
  torch::Tensor gamma, beta;                // (H d_key); beta for batch and layer norm
  torch::Tensor running_mean, running_var;  // (H d_key), batch norm
  std::vector<RowBlock> row_blocks;
  std::vector<torch::Tensor> col_blocks;  // (H or 1, cols, d_key / 2)
  bool statistics_held = false;           // PeerImpl::hold_statistics(); not stored
  std::uint64_t first_draw = 0;           // of dropout, that the layer had made before it was added
  Amp amp = Amp::off;                     // of the query network and the scores; not stored
  TeamChoice team;                        // of forwards of few tokens without a gradient
  const PeerOptions& options() const { return options_; }

 private:
  // One side's panels and the blocks that they were packed from.
  struct Panels {
    torch::Tensor values;  // (H or 1, panel_floats)
    std::vector<torch::Tensor> blocks;
    std::vector<std::uint32_t> versions;
    std::vector<c10::Storage> storages;
    bool trained = false;  // a gradient has passed since they were packed, or may be applied yet
  };

  static void stop_gradient(torch::Tensor tensor);
  torch::Tensor new_keys(std::uint32_t block, std::uint32_t part, std::int64_t n) const;
  static bool up_to_date(const Panels& panels, const std::vector<torch::Tensor>& blocks);
  kernels::SubKeys packed(Panels& panels, const std::vector<torch::Tensor>& blocks) const;
  std::vector<torch::Tensor> row_key_blocks() const;

  PeerOptions options_;
  std::uint32_t index_;
  mutable Panels row_panels_, col_panels_;
};

}  // namespace perennial
