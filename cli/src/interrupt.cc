// SPDX-License-Identifier: Apache-2.0
// Signal handlers of InterruptGuard: only async-signal-safe calls.
#include "interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace perennial::cli {
namespace {

constexpr int kExitInterrupted = 130;  // what shells report for SIGINT

std::atomic<int> signals{0};
static_assert(std::atomic<int>::is_always_lock_free, "used in a signal handler");
struct sigaction before_interrupt, before_terminate;

void handle(int) {
  if (signals.fetch_add(1) > 0) ::_exit(kExitInterrupted);
  constexpr std::string_view kMessage =
      "\nstopping after this step and committing; once more to leave at once\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
}

}  // namespace

InterruptGuard::InterruptGuard() {
  signals = 0;
  struct sigaction action {};
  action.sa_handler = handle;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, &before_interrupt);
  ::sigaction(SIGTERM, &action, &before_terminate);
}

InterruptGuard::~InterruptGuard() {
  ::sigaction(SIGINT, &before_interrupt, nullptr);
  ::sigaction(SIGTERM, &before_terminate, nullptr);
}

bool InterruptGuard::interrupted() { return signals.load(std::memory_order_relaxed) > 0; }

}  // namespace perennial::cli
