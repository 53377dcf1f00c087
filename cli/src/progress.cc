// SPDX-License-Identifier: Apache-2.0
// Drawing progress.
#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <numeric>

#include "output.h"

namespace perennial::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRedrawEvery{100};
constexpr milliseconds kPlainLineEvery{5000};
constexpr int kBarCells = 20;

ProgressDisplay::Settings standard_error(bool quiet) {
  ProgressDisplay::Settings settings;
  settings.out = &std::cerr;
  settings.quiet = quiet;
  settings.terminal = ::isatty(STDERR_FILENO) == 1;
  winsize size{};
  if (settings.terminal && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    settings.columns = size.ws_col;
  }
  return settings;
}

}  // namespace

ProgressDisplay::ProgressDisplay(bool quiet) : ProgressDisplay(standard_error(quiet)) {}
ProgressDisplay::ProgressDisplay(Settings settings) : settings_(std::move(settings)) {}

ProgressDisplay::~ProgressDisplay() {
  if (on_screen_) *settings_.out << '\n' << std::flush;
}

void ProgressDisplay::update(const State& state) {
  if (settings_.quiet) return;
  const Clock::time_point now = settings_.now();
  if (!start_) {
    start_ = now;
    start_done_ = state.done;
  }
  const milliseconds pause = settings_.terminal ? kRedrawEvery : kPlainLineEvery;
  if (drawn_ && now - *drawn_ < pause) return;
  drawn_ = now;
  std::string text = line(state, now);
  if (settings_.terminal) {
    text = one_line(text, columns());
    *settings_.out << "\r\x1B[K" << text << std::flush;
    on_screen_ = true;
  } else {
    *settings_.out << text << std::endl;
  }
}

void ProgressDisplay::clear() {
  if (on_screen_) *settings_.out << "\r\x1B[K" << std::flush;
  on_screen_ = false;
  drawn_.reset();
}

std::size_t ProgressDisplay::columns() const {
  return static_cast<std::size_t>(std::max(settings_.columns - 1, 10));
}

// Where a terminal is too narrow for all, parts are left out in the order of `kDispensable`.
std::string ProgressDisplay::line(const State& state, Clock::time_point now) const {
  const std::int64_t done = std::max<std::int64_t>(state.done, 0);
  const double seconds = std::chrono::duration<double>(now - *start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done - start_done_) / seconds : 0;
  enum Part { label, bar, percent, count, speed, left, detail, parts };
  std::array<std::string, parts> part;
  part[label] = state.label;
  part[count] = format_count(done);
  if (state.total > 0) {
    const double share =
        std::min(1.0, static_cast<double>(done) / static_cast<double>(state.total));
    if (settings_.terminal) {
      const int filled = static_cast<int>(share * kBarCells);
      part[bar] = " [" + std::string(static_cast<std::size_t>(filled), '#') +
                  std::string(static_cast<std::size_t>(kBarCells - filled), '-') + "]";
    }
    part[percent] = " " + std::to_string(static_cast<int>(share * 100)) + "%";
    part[count] = "  " + part[count] + "/" + format_count(state.total);
  } else {
    part[count] = " " + part[count];
  }
  part[count] += " " + state.unit;
  if (rate > 0) {
    part[speed] = "  " + format_count(std::llround(rate)) + "/s";
    if (state.total > done) {
      part[left] = "  " + format_duration(static_cast<double>(state.total - done) / rate) + " left";
    }
  }
  if (!state.detail.empty()) part[detail] = "  " + state.detail;
  const auto whole = [&] { return std::accumulate(part.begin(), part.end(), std::string()); };
  constexpr std::array kDispensable = {bar, count, speed, detail};
  for (const Part dispensable : kDispensable) {
    if (!settings_.terminal || whole().size() <= columns()) break;
    part[dispensable].clear();
  }
  return whole();
}

}  // namespace perennial::cli
