// SPDX-License-Identifier: Apache-2.0
// The stand-in device's memory: one range of addresses that the host cannot reach but for a while.
#include <c10/core/Allocator.h>
#include <c10/util/Exception.h>
#include <execinfo.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "host_device.h"

namespace perennial::cuda {

namespace {

constexpr std::size_t kArenaBytes = std::size_t{1} << 34;  // addresses, not memory
constexpr std::size_t kAlignment = 512;                    // CUDA's allocator in LibTorch has it
constexpr std::size_t kReachStep = std::size_t{1} << 24;
constexpr int kNothing = 0xFF;  // of a float, a NaN

class Arena;
Arena& arena();

class Arena {
 public:
  Arena() {
    void* const at =
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TORCH_CHECK(at != MAP_FAILED, "no addresses for the stand-in device");
    base_ = static_cast<std::byte*>(at);
    free_[0] = kArenaBytes;
    struct sigaction action = {};
    action.sa_sigaction = &report;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, nullptr);
  }

  bool holds(const void* p, std::size_t n) const {
    const auto* at = static_cast<const std::byte*>(p);
    return at >= base_ && at + n <= base_ + kArenaBytes;
  }

  void* allocate(std::size_t bytes) {
    const std::size_t n = rounded(bytes);
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(free_.begin(), free_.end(),
                                    [n](const auto& block) { return block.second >= n; });
    TORCH_CHECK(found != free_.end(), "the stand-in device is full");
    const auto [at, size] = *found;
    free_.erase(found);
    if (size > n) free_[at + n] = size - n;
    used_[at] = n;
    reach_ = std::max(reach_, (at + n + kReachStep - 1) / kReachStep * kReachStep);
    forget(at, n);
    return base_ + at;
  }

  void release(void* p) {
    const std::lock_guard lock(mutex_);
    auto at = static_cast<std::size_t>(static_cast<std::byte*>(p) - base_);
    const auto found = used_.find(at);
    std::size_t n = found->second;
    used_.erase(found);
    forget(at, n);
    const auto after = free_.lower_bound(at);
    if (after != free_.end() && after->first == at + n) {
      n += after->second;
      free_.erase(after);
    }
    if (const auto before = free_.lower_bound(at); before != free_.begin()) {
      const auto left = std::prev(before);
      if (left->first + left->second == at) {
        left->second += n;
        return;
      }
    }
    free_[at] = n;
  }

  void open() {
    std::vector<std::function<void()>> queued;
    {
      const std::lock_guard lock(mutex_);
      if (users_++ == 0) protect(PROT_READ | PROT_WRITE);
      std::swap(queued, queued_);
    }
    for (const auto& copy : queued) copy();
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--users_ == 0) protect(PROT_NONE);
  }
  void queue(std::function<void()> copy) {
    const std::lock_guard lock(mutex_);
    queued_.push_back(std::move(copy));
  }

 private:
  static std::size_t rounded(std::size_t bytes) {
    return std::max((bytes + kAlignment - 1) / kAlignment, std::size_t{1}) * kAlignment;
  }
  void forget(std::size_t at, std::size_t n) {
    protect(PROT_READ | PROT_WRITE);
    std::memset(base_ + at, kNothing, n);
    if (users_ == 0) protect(PROT_NONE);
  }
  void protect(int how) {
    if (reach_ > 0) TORCH_CHECK(mprotect(base_, reach_, how) == 0, "mprotect failed");
  }
  static void report(int signal, siginfo_t* info, void* /*context*/) {
    if (arena().holds(info->si_addr, 1)) {
      constexpr char kText[] =
          "the host touched the device's memory outside of a kernel and of a copy:\n";
      (void)!write(STDERR_FILENO, kText, sizeof(kText) - 1);
      void* frames[48];
      backtrace_symbols_fd(frames, backtrace(frames, 48), STDERR_FILENO);
    }
    std::signal(signal, SIG_DFL);  // and once more
  }

  std::byte* base_ = nullptr;
  std::mutex mutex_;
  std::map<std::size_t, std::size_t> free_, used_;  // offset to size
  std::size_t reach_ = 0;                           // beyond it nothing was given out yet
  int users_ = 0;
  std::vector<std::function<void()>> queued_;
};

Arena& arena() {
  static auto* const arena = new Arena;  // tensors may outlive everything
  return *arena;
}

class FakeAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    ++host_device().allocations;
    TORCH_CHECK_WITH(OutOfMemoryError, static_cast<std::int64_t>(bytes) <= host_device().largest,
                     "the stand-in device has no ", bytes, " bytes in one piece");
    if (bytes == 0) return {nullptr, fake_device()};
    void* const memory = arena().allocate(bytes);
    return {memory, memory, &release, fake_device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    const DeviceAccess access;
    default_copy_data(to, from, bytes);
  }

 private:
  static void release(void* memory) {
    if (memory != nullptr) arena().release(memory);
  }
};

FakeAllocator allocator;
const c10::AllocatorRegisterer<c10::DeviceType::PrivateUse1> registered(&allocator);

}  // namespace

HostDevice& host_device() {
  static HostDevice device;
  return device;
}

DeviceAccess::DeviceAccess() { arena().open(); }
DeviceAccess::~DeviceAccess() { arena().close(); }

bool of_device(const void* p, std::size_t n) { return arena().holds(p, n); }

bool all_of_device(std::initializer_list<const void*> pointers) {
  return std::all_of(pointers.begin(), pointers.end(),
                     [](const void* p) { return p == nullptr || of_device(p); });
}

void queue_on_device(std::function<void()> copy) { arena().queue(std::move(copy)); }

}  // namespace perennial::cuda
