// SPDX-License-Identifier: Apache-2.0
// Guard: takes back what was begun unless it is dismissed, also when something throws.
#pragma once

#include <utility>

namespace perennial::storage {

template <class Action>
class Guard {
 public:
  explicit Guard(Action action) : action_(std::move(action)) {}
  ~Guard() {
    if (armed_) action_();
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void dismiss() { armed_ = false; }

 private:
  Action action_;
  bool armed_ = true;
};

}  // namespace perennial::storage
