// SPDX-License-Identifier: Apache-2.0
// The options of a layer: their names, their checks, and those that are the pool's.
#include <string>

#include "perennial/core/peer.h"

namespace perennial {

EnumNames<Routing> enum_names(Routing) {
  return {{Routing::isolated, "isolated"}, {Routing::shared, "shared"}};
}
EnumNames<QueryNorm> enum_names(QueryNorm) {
  return {{QueryNorm::batch, "batch"},
          {QueryNorm::layer, "layer"},
          {QueryNorm::rms, "rms"},
          {QueryNorm::none, "none"}};
}
EnumNames<SubKeys> enum_names(SubKeys) {
  return {{SubKeys::per_head, "per-head"}, {SubKeys::common, "common"}};
}
namespace kernels {
EnumNames<Activation> enum_names(Activation) {
  return {{Activation::relu, "relu"},
          {Activation::gelu, "gelu"},
          {Activation::gelu_tanh, "gelu_tanh"},
          {Activation::silu, "silu"},
          {Activation::identity, "identity"}};
}
EnumNames<ScoreFunction> enum_names(ScoreFunction) {
  return {{ScoreFunction::softmax, "softmax"},
          {ScoreFunction::sigmoid, "sigmoid"},
          {ScoreFunction::relu, "relu"},
          {ScoreFunction::identity, "identity"}};
}
}  // namespace kernels

PoolOptions PeerOptions::pool() const {
  PoolOptions pool;
  pool.d_in = d_in;
  pool.d_out = d_out;
  pool.glu = glu;
  pool.expert_width = expert_width;
  pool.dtype = dtype;
  pool.cols = cols;
  pool.page_bytes = page_bytes;
  return pool;
}

void PeerOptions::validate() const {
  validate_ranges(*this);
  if (d_key % 2 != 0) {
    throw InvalidOptions("d_key is " + std::to_string(d_key) +
                         "; it must be even: half for rows, half for columns");
  }
  if (static_cast<double>(rows) * static_cast<double>(cols) < static_cast<double>(top_k)) {
    throw InvalidOptions("top_k is " + std::to_string(top_k) + "; a generation of " +
                         std::to_string(rows) + " x " + std::to_string(cols) +
                         " experts has fewer");
  }
  (void)pool().tile();
}

}  // namespace perennial
