// SPDX-License-Identifier: Apache-2.0
// The stages of our layer called one by one, on batches whose experts were retrieved before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench_peer.h"
#include "perennial/core/peer.h"
#include "pool/expert_place.h"

namespace perennial::bench {

// The stages take the batches in turn.
class Stages {
 public:
  Stages(PeerImpl& layer, const PeerSizes& sizes, const Batches& batches);

  void project();           // query network and norm
  void retrieve();          // scores and top-k, of the projected query
  void experts_forward();   // with the scores' weights given
  void experts_backward();  // dx, dweights and the coefficients of the expert side
  // Bytes of expert rows that a batch names, each row as often as it is named.
  double bytes() const;

 private:
  struct Batch {
    at::Tensor query;
    ExpertQuestion question;
    ExpertAnswer answer;
  };
  Batch& next() { return batches_[turn_++ % batches_.size()]; }

  PeerImpl& layer_;
  PeerSizes sizes_;
  std::vector<Batch> batches_;
  std::size_t turn_ = 0;
};

}  // namespace perennial::bench
