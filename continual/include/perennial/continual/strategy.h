// SPDX-License-Identifier: Apache-2.0
// Strategies: what a continual-learning method does around the steps of a trainer.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

// B rows of the stream, R rows in all, D features, C outputs of the model, P dense parameters.

// What a strategy may use and report to.
struct StrategyContext {
  Model& model;
  const Stream& stream;  // what is trained on
  const RunConfig& config;
  std::int64_t experience;
  std::int64_t epoch;
  std::int64_t step;  // from 0, of the pass
  // Appends an event to the run's record.
  std::function<void(std::string_view name, boost::json::object fields)> log;
  // Waits for a commit that is in flight: before a generation freezes or grows within an
  // experience.
  std::function<void()> settle;
  // Set by a strategy when other parameters than before train from now on.
  bool regrown = false;
  // Set by a strategy after an experience: the dense optimizer goes on without its moments.
  bool forget_moments = false;
};

// The rows of one step: those of the stream, then what strategies appended.
struct TrainingBatch {
  torch::Tensor x;             // (R, D) float32, preprocessed
  torch::Tensor y;             // their targets, as in Batch
  std::int64_t fresh = 0;      // B: rows that come from the stream
  torch::Tensor outputs = {};  // (R, C) of the step's forward, from loss() on; in the graph
  bool train = true;           // false: the step makes no forward, backward or update

  std::int64_t rows() const { return y.size(0); }
  torch::Tensor fresh_x() const { return x.narrow(0, 0, fresh); }
  torch::Tensor fresh_y() const { return y.narrow(0, 0, fresh); }
  torch::Tensor fresh_outputs() const { return outputs.narrow(0, 0, fresh); }
};

// What a strategy has to know of the run's stream from the start.
struct StreamShape {
  std::int64_t classes = 0;
  std::int64_t experiences = 0;  // of the run: T
  Preprocessing preprocessing;
};

// Walks over a strategy's state, to commit it or to load it.
class StateVisitor {
 public:
  virtual ~StateVisitor() = default;
  // A tensor of float32, float64, int64 or uint8, the host's; undefined where there is none. What
  // is changed other than through torch's operations must be a new tensor, or it passes for
  // unchanged.
  virtual void tensor(const std::string& name, torch::Tensor& value) = 0;
  virtual void integer(const std::string& name, std::int64_t& value) = 0;
  // As tensor(), of what a strategy keeps for dense parameters and uses with them: it is where they
  // are, and is loaded to there.
  virtual void beside_parameters(const std::string& name, torch::Tensor& value) {
    tensor(name, value);
  }
};

// Hooks, called by the trainer in this order:
//   before_experience, (before_step, loss, after_backward, after_step)*, after_experience.
// A run that resumes within an experience does not call before_experience again: what a strategy
// knows beyond its options and the model is in visit_state(), which may be called between any two
// steps, and at boundaries after after_experience. Random numbers are drawn from Philox streams of
// the strategy's own, whose positions are state, so a resumed run draws what it would have drawn
// and a strategy that does nothing leaves naive's bits. Single-threaded.
class Strategy {
 public:
  virtual ~Strategy() = default;

  // The stream that is trained on; evaluation always uses the run's own.
  virtual Stream training_stream(const Stream& stream) const { return stream; }
  virtual void before_experience(StrategyContext&) {}
  // After before_experience: true when there is nothing to train in this one.
  virtual bool skips_experience() const { return false; }
  // Looks at the step's rows, and may append to them or take the step out.
  virtual void before_step(StrategyContext&, TrainingBatch&) {}
  // The loss on the step's targets, in place of the task's mean loss of all rows; undefined = that
  // one. At most one strategy of a composition has one.
  virtual torch::Tensor target_loss(StrategyContext&, const TrainingBatch&) { return {}; }
  // A scalar that is added to the loss; undefined = nothing.
  virtual torch::Tensor extra_loss(StrategyContext&, const TrainingBatch&) { return {}; }
  // The gradients of the loss are in the dense parameters, and may be changed.
  virtual void after_backward(StrategyContext&, const TrainingBatch&) {}
  // The gradients of the experts that the step retrieved, one of each pool, on their way to the
  // optimizer: rows may be changed and taken out. Called only when reads_expert_gradients(),
  // which makes a step materialise them.
  virtual bool reads_expert_gradients() const { return false; }
  virtual void after_expert_backward(StrategyContext&, const TrainingBatch&,
                                     std::vector<CompactGradient>&) {}
  // The optimizer has stepped.
  virtual void after_step(StrategyContext&, const TrainingBatch&) {}
  // Before a generation is frozen, when composed with grow_freeze.
  virtual void after_experience(StrategyContext&) {}

  // Answers for x (B, D) in the model's place, at test; empty = the model's own answers.
  // `experience`: the one that x is from, where an oracle says so.
  virtual std::optional<Prediction> predict(Model&, const torch::Tensor& /*x*/,
                                            std::optional<std::uint32_t> /*experience*/) {
    return {};
  }

  virtual void visit_state(StateVisitor&) {}
  // The run goes on with further data: brings the state of a stream of shape `before` to one with
  // more experiences and perhaps more classes. False where it cannot; the state is then as it was.
  virtual bool extend(const StreamShape& /*before*/, const StreamShape& /*now*/) { return false; }
};

// The loss of a step whose outputs are known.
torch::Tensor step_loss(Strategy& strategy, StrategyContext& context, const TrainingBatch& batch);

// Throws InvalidOptions for what only the stream can tell: a memory with less than one example a
// class. `config` is valid.
std::unique_ptr<Strategy> make_strategy(const RunConfig& config, const StreamShape& shape);

// The model as it answers under a strategy; in all else the model itself. The pointers may own, or
// point at what outlives the result.
std::unique_ptr<Model> answering_model(std::shared_ptr<Model> model,
                                       std::shared_ptr<Strategy> strategy);

}  // namespace perennial::continual
