// SPDX-License-Identifier: Apache-2.0
// A CUDA device made of the host's processor, for tests: the .cu sources are compiled as C++ with
// the headers of this folder in place of CUDA's, and every thread of a block is a fiber. Blocks run
// one after the other; a block's threads take turns at barriers and shuffles. What CUDA leaves
// undefined ends the program with a message: a barrier or shuffle that a thread of the block or
// warp does not come to, a launch beyond a device's limits. Neither warps' timing nor memory's
// ordering is emulated; threads and blocks run in ascending order, or in descending order with
// PERENNIAL_EMULATOR_ORDER=descending, so that a missing barrier changes results.
// Memory of the device is malloc's, so that AddressSanitizer watches it, dynamic shared memory too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "cuda_runtime_api.h"

namespace emulator {

struct Dim3 {
  constexpr Dim3(unsigned x_size = 1, unsigned y_size = 1, unsigned z_size = 1)  // as CUDA's
      : x(x_size), y(y_size), z(z_size) {}
  unsigned x, y, z;
};

// Of the fiber that runs.
extern Dim3 thread_index, block_index, block_size, grid_size;

// What opens and closes the device's memory around all that touches it on the device; none: the
// memory is always there.
struct Reach {
  void (*open)() = nullptr;
  void (*close)() = nullptr;
};
extern Reach reach;
class Reaching {
 public:
  Reaching() {
    if (reach.open != nullptr) reach.open();
  }
  ~Reaching() {
    if (reach.close != nullptr) reach.close();
  }
  Reaching(const Reaching&) = delete;
  Reaching& operator=(const Reaching&) = delete;
};

[[noreturn]] void fail(const char* what);
void wait_for_block();
// A warp has 32 lanes; all of them must come.
void wait_for_warp();
unsigned lane();
// Every lane of the warp gives a value of `bytes` (at most 16) and gets that of lane ^ distance.
void exchange(unsigned mask, const void* value, void* out, std::size_t bytes, int distance);
template <class T>
T shuffle_xor(unsigned mask, const T& value, int distance) {
  static_assert(std::is_trivially_copyable_v<T>);
  T out;
  exchange(mask, &value, &out, sizeof(T), distance);
  return out;
}
cudaError_t take_last_error();  // of a launch; success afterwards
void* dynamic_shared_memory();
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}

// kernel<<<grid, block, shared, stream>>>(arguments) is Launch(grid, block, shared,
// stream).of(kernel)(arguments). A launch that a device refuses runs nothing and leaves its error
// to cudaGetLastError().
class Launch {
 public:
  Launch(Dim3 grid, Dim3 block, std::size_t shared_bytes = 0, cudaStream_t /*stream*/ = nullptr)
      : grid_(grid), block_(block), shared_bytes_(shared_bytes) {}

  template <class... Parameters>
  auto of(void (*kernel)(Parameters...)) const {
    return [*this, kernel](std::type_identity_t<Parameters>... arguments) {
      run([&] { kernel(arguments...); });
    };
  }

 private:
  void run(const std::function<void()>& thread) const;

  Dim3 grid_, block_;
  std::size_t shared_bytes_;
};

}  // namespace emulator
