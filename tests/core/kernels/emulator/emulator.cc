// SPDX-License-Identifier: Apache-2.0
// Fibers, barriers and launches.
#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

Dim3 thread_index, block_index, block_size, grid_size;
Reach reach;

namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kMostShared = 48 << 10;  // dynamic, unless a kernel asks for more
constexpr std::size_t kStackBytes = 64 << 10;
constexpr std::size_t kShuffleBytes = 16;

enum class State { ready, at_block_barrier, at_warp_barrier, ended };

// A place to come back to. swapcontext() asks the kernel twice about signals; after a fiber's first
// time _longjmp() does without. AddressSanitizer follows the former only.
struct Place {
  ucontext_t context = {};
  jmp_buf jump;
  bool jumps = false;  // whether `jump` is where it is
};
void go(Place& from, Place& to) {
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.jump) != 0) return;
  from.jumps = true;
  if (to.jumps) _longjmp(to.jump, 1);
  setcontext(&to.context);
#endif
}

struct Fiber {
  Place place;
  std::unique_ptr<unsigned char[]> stack;
  State state = State::ended;
  unsigned char given[kShuffleBytes] = {};  // to a shuffle
};

struct Processor {
  Place scheduler;
  std::vector<Fiber> fibers = std::vector<Fiber>(kMostThreads);
  unsigned threads = 0, current = 0;
  const std::function<void()>* body = nullptr;
  std::unique_ptr<unsigned char[]> shared;
  cudaError_t last_error = cudaSuccess;
  bool descending = false;
#ifdef __SANITIZE_ADDRESS__
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_stack_bytes = 0;
#endif

  Processor() {
    const char* order = std::getenv("PERENNIAL_EMULATOR_ORDER");
    descending = order != nullptr && std::string_view(order) == "descending";
  }
};
Processor& processor() {
  static Processor one;
  return one;
}

// From the fiber that runs to the scheduler; comes back when the fiber is resumed, if ever.
void leave(Processor& p, State state) {
  Fiber& fiber = p.fibers[p.current];
  fiber.state = state;
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, p.scheduler_stack, p.scheduler_stack_bytes);
#endif
  go(fiber.place, p.scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &p.scheduler_stack, &p.scheduler_stack_bytes);
#endif
}

void fiber_main() {
  Processor& p = processor();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &p.scheduler_stack, &p.scheduler_stack_bytes);
#endif
  for (;;) {  // a thread of a block after the other
    (*p.body)();
    leave(p, State::ended);
  }
}

void resume(Processor& p, unsigned thread) {
  p.current = thread;
  thread_index = {thread % block_size.x, thread / block_size.x % block_size.y,
                  thread / (block_size.x * block_size.y)};
  Fiber& fiber = p.fibers[thread];
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStackBytes);
#endif
  go(p.scheduler, fiber.place);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void start(Fiber& fiber) {
  fiber.state = State::ready;
  if (fiber.stack != nullptr) return;
  fiber.stack = std::make_unique<unsigned char[]>(kStackBytes);
  ucontext_t& context = fiber.place.context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
}

// Runs a warp until each of its lanes waits for the block or has ended.
void run_warp(Processor& p, unsigned first) {
  const unsigned end = std::min(first + kWarp, p.threads);
  for (;;) {
    for (unsigned i = first; i < end; ++i) {
      const unsigned t = p.descending ? first + end - 1 - i : i;
      if (p.fibers[t].state == State::ready) resume(p, t);
    }
    unsigned waiting = 0;
    for (unsigned t = first; t < end; ++t) {
      if (p.fibers[t].state == State::at_warp_barrier) ++waiting;
    }
    if (waiting == 0) return;
    if (waiting != kWarp) fail("a warp waits for a lane that does not come");
    for (unsigned t = first; t < end; ++t) p.fibers[t].state = State::ready;
  }
}

// Runs a block to its end, warp by warp from barrier to barrier.
void run_block(Processor& p) {
  for (unsigned t = 0; t < p.threads; ++t) start(p.fibers[t]);
  const unsigned warps = (p.threads + kWarp - 1) / kWarp;
  for (;;) {
    for (unsigned w = 0; w < warps; ++w) run_warp(p, (p.descending ? warps - 1 - w : w) * kWarp);
    unsigned ended = 0;
    for (unsigned t = 0; t < p.threads; ++t) ended += p.fibers[t].state == State::ended ? 1 : 0;
    if (ended == p.threads) return;
    if (ended > 0) fail("a barrier that a thread of its block does not come to");
    for (unsigned t = 0; t < p.threads; ++t) p.fibers[t].state = State::ready;
  }
}

cudaError_t error_of(const Dim3& grid, const Dim3& block, std::size_t shared_bytes) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64 || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.x > 0x7FFFFFFFu || grid.y > 0xFFFFu || grid.z > 0xFFFFu) {
    return cudaErrorInvalidConfiguration;
  }
  return shared_bytes > kMostShared ? cudaErrorInvalidValue : cudaSuccess;
}

}  // namespace

void fail(const char* what) {
  std::fprintf(stderr, "emulated device: %s (block %u %u %u)\n", what, block_index.x, block_index.y,
               block_index.z);
  std::abort();
}

void wait_for_block() { leave(processor(), State::at_block_barrier); }
void wait_for_warp() { leave(processor(), State::at_warp_barrier); }
unsigned lane() { return processor().current % kWarp; }

void exchange(unsigned mask, const void* value, void* out, std::size_t bytes, int distance) {
  Processor& p = processor();
  if (mask != 0xFFFFFFFFu) fail("a shuffle of a part of a warp is not emulated");
  if (bytes > kShuffleBytes) fail("a shuffle of more than 16 bytes is not emulated");
  const unsigned me = p.current, other = me ^ static_cast<unsigned>(distance);
  std::memcpy(p.fibers[me].given, value, bytes);
  leave(p, State::at_warp_barrier);
  if (other / kWarp != me / kWarp) fail("a shuffle beyond its warp");
  std::memcpy(out, p.fibers[other].given, bytes);
  leave(p, State::at_warp_barrier);
}

cudaError_t take_last_error() { return std::exchange(processor().last_error, cudaSuccess); }

void* dynamic_shared_memory() { return processor().shared.get(); }

void Launch::run(const std::function<void()>& thread) const {
  Processor& p = processor();
  p.last_error = error_of(grid_, block_, shared_bytes_);
  if (p.last_error != cudaSuccess) return;
  const Reaching reaching;
  p.body = &thread;
  p.threads = block_.x * block_.y * block_.z;
  p.shared = std::make_unique<unsigned char[]>(shared_bytes_);
  block_size = block_;
  grid_size = grid_;
  const std::uint64_t blocks = std::uint64_t{grid_.x} * grid_.y * grid_.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = p.descending ? blocks - 1 - i : i;
    block_index = {static_cast<unsigned>(b % grid_.x), static_cast<unsigned>(b / grid_.x % grid_.y),
                   static_cast<unsigned>(b / grid_.x / grid_.y)};
    std::memset(p.shared.get(), 0xA5, shared_bytes_);
    run_block(p);
  }
}

}  // namespace emulator
