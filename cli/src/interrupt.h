// SPDX-License-Identifier: Apache-2.0
// Ctrl-C for work that must end whole.
#pragma once

namespace perennial::cli {

// While an InterruptGuard lives, the first SIGINT or SIGTERM asks the work to stop (it polls
// interrupted()) and says so on standard error; the second one ends the process at once with 130.
// Afterwards the signals do what they did before. One at a time, in the main thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // True once a signal came. May be polled from any thread.
  static bool interrupted();
};

}  // namespace perennial::cli
