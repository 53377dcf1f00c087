// SPDX-License-Identifier: Apache-2.0
// Whether a short piece of work is worth a team of threads, found out while it is done.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

namespace perennial {

// Work of some tens of microseconds gains from a second thread only where that thread runs at once.
// On a machine with other work it often does not, and everybody waits for it. So calls are timed:
// the choice between all threads and one alone is the one that took less time lately, and the other
// is tried now and then. Results must not depend on it. Single-threaded; needs no clock of its own.
class TeamChoice {
 public:
  // Whether the next call has all threads.
  bool team() const { return trial_ > 0 ? !choice_ : choice_; }

  // What the call that team() was asked for took.
  void took(double seconds) {
    sum_ += seconds;
    ++calls_;
    if (trial_ > 0) {
      if (--trial_ == 0) end_trial();
      return;
    }
    if (--until_trial_ == 0) {
      // What is left of a window of the choice is too short to say anything.
      begin_window();
      trial_ = kTrialCalls;
    } else if (calls_ == kWindowCalls) {
      seconds_[choice_] = mean();
      begin_window();
      if (known_ && seconds_[choice_] > kClearly * seconds_[!choice_]) choose_the_other();
    }
  }

 private:
  static constexpr int kWindowCalls = 16;  // enough to see a thread that runs only now and then
  static constexpr int kTrialCalls = 4;
  static constexpr int kFirstTrial = 64, kRarestTrial = 1024;  // calls from one trial to the next
  static constexpr double kClearly = 1.1;                      // by more than the noise

  double mean() const { return sum_ / calls_; }
  void begin_window() {
    sum_ = 0;
    calls_ = 0;
  }
  void end_trial() {
    seconds_[!choice_] = mean();
    begin_window();
    known_ = true;
    if (seconds_[choice_] > kClearly * seconds_[!choice_]) {
      choose_the_other();
    } else {
      next_trial();
    }
  }
  void choose_the_other() {
    choice_ = !choice_;
    next_trial();
  }
  // Every trial and every change of mind makes the next one rarer, so that neither costs much.
  void next_trial() {
    interval_ = std::min(2 * interval_, kRarestTrial);
    until_trial_ = interval_;
  }

  bool choice_ = true;
  bool known_ = false;          // what the other one takes
  double seconds_[2] = {0, 0};  // a call, alone and with the team, when last looked at
  double sum_ = 0;              // of the window, or of the trial
  int calls_ = 0;
  int trial_ = 0;  // calls that it still has; 0 outside
  int interval_ = kFirstTrial / 2, until_trial_ = kFirstTrial;
};

}  // namespace perennial
