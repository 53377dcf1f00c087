// SPDX-License-Identifier: Apache-2.0
// Strategies: what a continual-learning method does around the steps of a trainer.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

// What a strategy may use and report to.
struct StrategyContext {
  Model& model;
  const Stream& stream;  // what is trained on
  const RunConfig& config;
  // Appends an event to the run's record.
  std::function<void(std::string_view name, boost::json::object fields)> log;
};

// Hooks, called by the trainer in this order: before_experience, (before_step, after_step)*,
// after_experience. A strategy that keeps state of its own adds it to commits.
class Strategy {
 public:
  virtual ~Strategy() = default;

  // The stream that is trained on; evaluation always uses the run's own.
  virtual Stream training_stream(const Stream& stream) const { return stream; }
  virtual void before_experience(StrategyContext&, std::int64_t /*experience*/) {}
  // After before_experience: true when there is nothing to train in this one.
  virtual bool skips_experience() const { return false; }
  virtual void before_step(StrategyContext&, std::int64_t /*experience*/, const Batch&) {}
  virtual void after_experience(StrategyContext&, std::int64_t /*experience*/) {}
};

std::unique_ptr<Strategy> make_strategy(const RunConfig& config);

}  // namespace perennial::continual
