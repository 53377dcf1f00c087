// SPDX-License-Identifier: Apache-2.0
// Loading and committing a pool that is changed by hand.
#include "learnt_pool.h"

namespace perennial::cli {

LearntPool::LearntPool(const std::string& folder)
    : store_(open_store(folder)), learnt_(continual::load_learnt(*store_, 0)) {
  if (learnt_.model->peer() == nullptr) {
    throw InvalidOptions("the store's model is an mlp: it has no pool of experts");
  }
  if (!learnt_.finished) {
    throw InvalidOptions(
        "the store's run has not finished; finish it first with: perennial train "
        "--store " +
        folder);
  }
}

storage::CommitInfo LearntPool::commit(const std::string& action, const std::string& snapshot) {
  return continual::commit_model(*store_, *learnt_.model, action, snapshot);
}

boost::json::object generation_json(const Generation& generation) {
  return {{"index", generation.index},
          {"first_row", generation.first_row},
          {"rows", generation.rows},
          {"cols", generation.cols},
          {"frozen", generation.frozen},
          {"digest", generation.frozen ? boost::json::value(generation.digest.hex())
                                       : boost::json::value(nullptr)}};
}

}  // namespace perennial::cli
