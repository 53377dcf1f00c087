// SPDX-License-Identifier: Apache-2.0
// What the torture harness does to a store, step by step, and what the store must hold after it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "random.h"
#include "storage/store_testing.h"

namespace perennial::storage::testing {

// The oracle. Cheap to copy: models are shared.
struct Expected {
  std::uint64_t head = 0;
  std::map<std::uint64_t, std::shared_ptr<const Model>> commits;  // what can be restored; 0: empty
  std::map<std::string, std::uint64_t> snapshots;
  std::uint32_t keep_last = Retention().keep_last;

  Expected() : commits{{0, std::make_shared<const Model>()}} {}
  const Model& model() const { return *commits.at(head); }
};

// One call of the store. Drawn once, it may be run and applied any number of times.
class Step {
 public:
  virtual ~Step() = default;
  virtual std::string describe() const = 0;
  virtual Status run(PageStore& store) = 0;          // makes the call
  virtual void apply(Expected& expected) const = 0;  // what the call has done if it succeeded
};

// The step that `seed` chooses for a store in the state `expected`. A further operation of the
// store needs a Step and a row in the table of steps.cc, nothing else.
std::unique_ptr<Step> draw_step(std::uint64_t seed, const Expected& expected);

enum class Match {
  same,
  unreadable,  // something is reported as damaged or could not be read
  different,   // the store says something that is not so
};

struct Comparison {
  Match match = Match::same;
  std::string why;
};

// Head, pages, dense entries, snapshots, the commits that can be restored, and the oldest of them.
Comparison compare(const PageStore& store, const Expected& expected);

// Empty if verify() finds nothing.
std::string verify_failure(PageStore& store);

}  // namespace perennial::storage::testing
