// SPDX-License-Identifier: Apache-2.0
// Progress on a terminal, elsewhere, and silenced, with a clock of the test's own.
#include "progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace perennial::cli {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class ProgressTest : public ::testing::Test {
 protected:
  ProgressDisplay::Settings settings(bool terminal, bool quiet = false) {
    return {&out_, terminal, quiet, 100, [this] { return now_; }};
  }
  static ProgressDisplay::State state(std::int64_t done) {
    return {"training 2 of 5", done, 10000, "examples", "loss 0.412"};
  }
  std::string taken() {
    const std::string text = out_.str();
    out_.str("");
    return text;
  }

  std::ostringstream out_;
  ProgressDisplay::Clock::time_point now_{};
};

TEST_F(ProgressTest, RedrawsATerminalAtMostTenTimesASecond) {
  {
    ProgressDisplay display(settings(true));
    display.update(state(0));
    EXPECT_EQ(taken(),
              "\r\x1B[Ktraining 2 of 5 [--------------------] 0%  0/10,000 examples  loss 0.412");
    now_ += milliseconds(99);
    display.update(state(100));
    EXPECT_EQ(taken(), "");
    now_ += milliseconds(1901);
    display.update(state(5000));
    EXPECT_EQ(taken(),
              "\r\x1B[Ktraining 2 of 5 [##########----------] 50%  5,000/10,000 examples  2,500/s  "
              "2.0 s left  loss 0.412");
    display.clear();
    EXPECT_EQ(taken(), "\r\x1B[K");
    display.update(state(5001));
    EXPECT_THAT(taken(), HasSubstr("5,001/10,000"));
  }
  EXPECT_EQ(taken(), "\n");
}

TEST_F(ProgressTest, FitsTheTerminal) {
  ProgressDisplay::Settings narrow = settings(true);
  narrow.columns = 16;
  ProgressDisplay display(narrow);
  display.update(state(10));
  const std::string text = taken();
  EXPECT_EQ(text.size(), std::string("\r\x1B[K").size() + 15);
  EXPECT_TRUE(text.ends_with("..."));
}

TEST_F(ProgressTest, AlwaysHasTheTimeLeft) {
  ProgressDisplay::State long_state = {"grow_freeze+er, training 12 of 20", 0, 1200000, "examples",
                                       "loss 0.412"};
  for (const int columns : {110, 100, 80, 56}) {
    ProgressDisplay::Settings of_width = settings(true);
    of_width.columns = columns;
    ProgressDisplay display(of_width);
    long_state.done = 0;
    display.update(long_state);
    taken();
    now_ += milliseconds(10000);
    long_state.done = 12345;
    display.update(long_state);
    const std::string text = taken();
    EXPECT_THAT(text, HasSubstr("1%")) << columns;
    EXPECT_THAT(text, HasSubstr("16 min 02 s left")) << columns;
    EXPECT_LE(text.size(), std::string("\r\x1B[K").size() + static_cast<std::size_t>(columns) - 1);
    EXPECT_EQ(text.find("..."), std::string::npos) << text;
  }
}

TEST_F(ProgressTest, PrintsPlainLinesEveryFewSecondsElsewhere) {
  {
    ProgressDisplay display(settings(false));
    for (int i = 0; i < 100; ++i) {
      display.update(state(i * 100));
      now_ += milliseconds(100);
    }
    display.clear();
  }
  EXPECT_EQ(taken(),
            "training 2 of 5 0%  0/10,000 examples  loss 0.412\n"
            "training 2 of 5 50%  5,000/10,000 examples  1,000/s  5.0 s left  loss 0.412\n");
}

TEST_F(ProgressTest, TheRateIsOfThisRunAlone) {
  ProgressDisplay display(settings(true));
  display.update(state(8000));  // found done by a resumed run
  now_ += milliseconds(1000);
  display.update(state(8100));
  EXPECT_THAT(taken(), HasSubstr("100/s  19.0 s left"));
}

TEST_F(ProgressTest, KnowsNoEndWithoutATotal) {
  ProgressDisplay display(settings(true));
  display.update({"reading", 12, 0, "pages", ""});
  EXPECT_EQ(taken(), "\r\x1B[Kreading 12 pages");
}

TEST_F(ProgressTest, IsSilentWhenQuiet) {
  {
    ProgressDisplay display(settings(true, true));
    display.update(state(1));
    display.clear();
  }
  EXPECT_EQ(taken(), "");
}

}  // namespace
}  // namespace perennial::cli
