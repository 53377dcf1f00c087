// SPDX-License-Identifier: Apache-2.0
// What a run records of each experience: how long it trained, and how large it has become.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <cstdint>

#include "perennial/continual/model.h"

namespace perennial::continual {

// Wall time of an experience: its steps and its strategy's hooks, without evaluations. What was
// trained and then lost to a crash does not count; what processes before this one committed does.
// Single-threaded.
class ExperienceClock {
 public:
  // Starts, or goes on after `before` seconds.
  void start(double before) {
    before_ = before;
    start_ = Clock::now();
    running_ = true;
  }
  // Takes time out that was not training.
  void exclude(double seconds) {
    if (running_) before_ -= seconds;
  }
  double seconds() const {
    return running_ ? before_ + std::chrono::duration<double>(Clock::now() - start_).count()
                    : before_;
  }
  // Stands still at seconds() until it is started again.
  void stop() {
    before_ = seconds();
    running_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;
  double before_ = 0;
  Clock::time_point start_;
  bool running_ = false;
};

// {"experience" (from 1), "steps", "examples", "seconds", "examples_per_second",
// "dense_parameters", "parameters", and of a pool "experts", "expert_parameters", "pool_bytes"
// (of all pages of weights, written or not) and "generations"}; "replay_bytes" is what the strategy
// keeps beside the model.
boost::json::object experience_json(std::int64_t experience, std::int64_t steps,
                                    std::int64_t examples, double seconds, Model& model,
                                    std::int64_t replay_bytes);

}  // namespace perennial::continual
