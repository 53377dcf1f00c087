// SPDX-License-Identifier: Apache-2.0
// Participant: what has a share in every commit.
#pragma once

#include <utility>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial {

// Whoever commits asks each participant for its share, commits the request, and tells each of them
// how that ended. A share owns the names of its entries: no two participants have one in common.
class Participant {
 public:
  virtual ~Participant() = default;

  // Adds what changed since the last commit that succeeded, as it is now; between this and the end
  // of the commit everything may change again. Throws Error where another participant gave an entry
  // of the same name.
  virtual void add_to_commit(storage::CommitRequest& request) = 0;
  // The request of the last add_to_commit() was committed.
  virtual void committed() = 0;
  // It was not, or nobody knows: what was in it belongs to the next one. One of the two comes
  // before the next add_to_commit(); a pool throws Error otherwise, and nothing has changed then.
  virtual void commit_failed() = 0;
};

// Several of them as one, in order. They must outlive it.
class Participants final : public Participant {
 public:
  explicit Participants(std::vector<Participant*> parts) : parts_(std::move(parts)) {}

  void add_to_commit(storage::CommitRequest& request) override {
    for (Participant* part : parts_) part->add_to_commit(request);
  }
  void committed() override {
    for (Participant* part : parts_) part->committed();
  }
  void commit_failed() override {
    for (Participant* part : parts_) part->commit_failed();
  }

 private:
  std::vector<Participant*> parts_;
};

}  // namespace perennial
