// SPDX-License-Identifier: Apache-2.0
// How a run's routing looks after each experience, on a few inputs of each test set.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

// Takes the first `inputs` examples of each test set learnt so far through the router of their
// generation and compares with what it retrieved when their experience had just been learnt. What
// was then is kept in the run's events, so a resumed run goes on; nothing of it is in a commit or
// changes a number of the run. Cost after experience k: k x inputs retrievals, and as many answers
// where generations answer alone (isolated routing); of an evaluation of whole test sets of 10,000
// a fiftieth at 200 inputs. Single-threaded.
class RoutingProbe {
 public:
  // inputs 0: off. The stream must outlive it.
  RoutingProbe(const Stream& stream, std::int64_t inputs);
  // Reads what a run recorded before; lines that are not its own are skipped.
  void load(const std::filesystem::path& events);

  // Once after each experience; `learnt` of them by now.
  //
  // Adds to an "experience" event what it can compare with the one before: "parameters_added", and
  // of a pool "hit_rate", of the pages that its training used (absent when it used none). With the
  // probe on, of the experts of the generation that learnt the experience, on its own inputs:
  // "usage" = share that any input retrieved, "unevenness" = log N + sum z log z with z the share
  // of the retrieved weights that each of N experts got (the KL divergence from uniform; He 2024,
  // section 4.3), "dead_rows" = share of its rows without a retrieved expert.
  void add_to(boost::json::object& experience, Model& model, std::int64_t learnt);
  // The fields of a "routing" event: "row", "inputs", "drift", "leak", each by experience as
  // routing_drift and routing_leak define them (the leak is absent where no generation is newer
  // than any), "weight_forgetting" where generations answer alone, and what later events compare
  // with: "sets", a digest of the experts of each input, and "accuracy". Empty for models without a
  // pool, and when off.
  boost::json::object event(Model& model, std::int64_t learnt);

 private:
  struct Then {
    std::vector<std::string> sets;
    double score = 0;
  };
  bool on(Model& model) const { return inputs_ > 0 && model.only_layer() != nullptr; }
  Batch inputs_of(std::int64_t experience) const;

  const Stream& stream_;
  std::int64_t inputs_;
  std::map<std::int64_t, Then> then_;                   // by experience
  std::uint64_t parameters_ = 0, hits_ = 0, uses_ = 0;  // at the experience before
};

}  // namespace perennial::continual
