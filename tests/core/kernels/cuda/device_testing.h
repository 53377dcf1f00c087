// SPDX-License-Identifier: Apache-2.0
// Device memory for the tests of the CUDA kernels, and the guard that skips them without a device.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "perennial/kernels/contribution.h"
#include "perennial/kernels/cuda/device.h"
#include "perennial/kernels/expert_id.h"

namespace perennial::kernels::cuda {

// Skips the test of a machine without a device, saying why.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const Error error = device_count(&count);
    if (error != 0) GTEST_SKIP() << "no CUDA device: " << error_text(error);
    if (count == 0) GTEST_SKIP() << "no CUDA device";
  }
  // Everything a test launched has run, without an error.
  void TearDown() override {
    if (IsSkipped()) return;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    ASSERT_EQ(cudaGetLastError(), cudaSuccess);
  }
};

#define ASSERT_CUDA(expression)                          \
  do {                                                   \
    const int error_code = static_cast<int>(expression); \
    ASSERT_EQ(error_code, 0) << error_text(error_code);  \
  } while (false)

// n values of T on the device, between two guards of 256 bytes that must keep theirs; what is
// written to it first is noise, so that an element no kernel writes shows.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(std::size_t n) : n_(n) {
    const std::size_t bytes = n * sizeof(T) + 2 * kGuard;
    if (cudaMalloc(&memory_, bytes) != cudaSuccess) std::abort();
    if (cudaMemset(memory_, kNoise, bytes) != cudaSuccess) std::abort();
  }
  explicit OnDevice(const std::vector<T>& values) : OnDevice(values.size()) { write(values); }
  ~OnDevice() {
    std::vector<unsigned char> guards(2 * kGuard);
    cudaMemcpy(guards.data(), memory_, kGuard, cudaMemcpyDeviceToHost);
    cudaMemcpy(guards.data() + kGuard, bytes() + kGuard + n_ * sizeof(T), kGuard,
               cudaMemcpyDeviceToHost);
    for (const unsigned char byte : guards) {
      if (byte != kNoise) {
        ADD_FAILURE() << "a kernel wrote outside its array of " << n_;
        break;
      }
    }
    cudaFree(memory_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* data() { return reinterpret_cast<T*>(bytes() + kGuard); }
  // Null where there is nothing: an optional array.
  T* data_or_null() { return n_ == 0 ? nullptr : data(); }
  std::size_t size() const { return n_; }
  void write(std::span<const T> values) {
    ASSERT_EQ(values.size(), n_);
    if (n_ == 0) return;
    ASSERT_EQ(cudaMemcpy(data(), values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  std::vector<T> read() {
    std::vector<T> values(n_);
    if (n_ > 0) {
      EXPECT_EQ(cudaMemcpy(values.data(), data(), n_ * sizeof(T), cudaMemcpyDeviceToHost),
                cudaSuccess);
    }
    return values;
  }

 private:
  static constexpr std::size_t kGuard = 256;
  static constexpr int kNoise = 0xA5;
  unsigned char* bytes() { return static_cast<unsigned char*>(memory_); }
  std::size_t n_;
  void* memory_ = nullptr;
};

// The pages of a host's frame table, in frames of the device that lie in another order and apart.
class DeviceFrames {
 public:
  explicit DeviceFrames(const FrameTable& host)
      : host_(host), words_(host.tile * host.record_floats) {
    std::int64_t pages = 0;
    for (const PageSpan& span : host.spans) pages += std::int64_t{span.rows} * span.tiles;
    memory_ = std::make_unique<OnDevice<float>>(static_cast<std::size_t>(pages * words_));
    std::vector<float*> frames;
    for (std::int64_t p = 0; p < pages; ++p) {  // in the reverse order
      frames.push_back(memory_->data() + (pages - 1 - p) * words_);
    }
    frames_ = std::make_unique<OnDevice<float*>>(frames);
    std::vector<PageSpan> spans;
    std::int64_t first = 0;
    for (const PageSpan& span : host.spans) {
      spans.push_back(span);
      spans.back().frames = frames_->data() + first;
      first += std::int64_t{span.rows} * span.tiles;
    }
    spans_ = std::make_unique<OnDevice<PageSpan>>(spans);
    where_ = frames;
    upload();
  }
  Frames table() const {
    return {spans_->data(), static_cast<std::uint32_t>(host_.spans.size()), host_.tile,
            host_.record_floats};
  }
  // The host's pages to the device, and back.
  void upload() {
    each([](float* device, float* host, std::size_t bytes) {
      return cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice);
    });
  }
  void download() {
    each([](float* device, float* host, std::size_t bytes) {
      return cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost);
    });
  }

 private:
  template <class Copy>
  void each(Copy copy) {
    std::size_t page = 0;
    for (const PageSpan& span : host_.spans) {
      for (std::size_t p = 0; p < std::size_t{span.rows} * span.tiles; ++p) {
        ASSERT_EQ(
            copy(where_[page++], span.frames[p], static_cast<std::size_t>(words_) * sizeof(float)),
            cudaSuccess);
      }
    }
  }
  FrameTable host_;
  std::int64_t words_;
  std::unique_ptr<OnDevice<float>> memory_;
  std::unique_ptr<OnDevice<float*>> frames_;
  std::unique_ptr<OnDevice<PageSpan>> spans_;
  std::vector<float*> where_;
};

}  // namespace perennial::kernels::cuda
