// SPDX-License-Identifier: Apache-2.0
// Loading and committing a pool that is changed by hand.
#include "learnt_pool.h"

namespace perennial::cli {

LearntPool::LearntPool(const std::string& folder)
    : store_(open_store(folder)), learnt_(continual::load_learnt(*store_, 0)) {
  (void)experts_of(learnt_);
  if (!learnt_.finished) {
    throw InvalidOptions(
        "the store's run has not finished; finish it first with: perennial train "
        "--store " +
        folder);
  }
}

ExpertLayers& experts_of(const continual::LearntModel& learnt) {
  if (learnt.model->experts() == nullptr) {
    throw InvalidOptions("the store's model is an mlp: it has no pool of experts");
  }
  return *learnt.model->experts();
}

storage::CommitInfo LearntPool::commit(const std::string& action, const std::string& snapshot) {
  return continual::commit_model(*store_, *learnt_.model, action, snapshot);
}

boost::json::object generation_json(const Generation& generation) {
  return {{"index", generation.index},
          {"first_row", generation.first_row},
          {"rows", generation.rows},
          {"cols", generation.cols},
          {"state", enum_name(generation.state)},
          {"digest", generation.state == GenerationState::frozen
                         ? boost::json::value(generation.digest.hex())
                         : boost::json::value(nullptr)}};
}

}  // namespace perennial::cli
