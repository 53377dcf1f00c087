// SPDX-License-Identifier: Apache-2.0
// A store's model, opened to change its pool by hand.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>

#include "perennial/continual/trainer.h"
#include "store_access.h"

namespace perennial::cli {

// Opens the store and loads its model. Throws InvalidOptions when the model has no pool, or while
// the store's run has not finished: growing under it would change what it resumes to.
class LearntPool {
 public:
  explicit LearntPool(const std::string& folder);

  continual::Model& model() { return *learnt_.model; }
  ExpertLayers& experts() { return *learnt_.model->experts(); }
  // Commits the changed model; `action` goes into the note.
  storage::CommitInfo commit(const std::string& action, const std::string& snapshot);

 private:
  std::unique_ptr<storage::PageStore> store_;
  continual::LearntModel learnt_;
};

// The PEER layers of a learnt model; throws InvalidOptions when the model has none.
ExpertLayers& experts_of(const continual::LearntModel& learnt);

boost::json::object generation_json(const Generation& generation);

}  // namespace perennial::cli
