// SPDX-License-Identifier: Apache-2.0
// The device that the tests of this folder run on: a stand-in on the host
// (core_device_test; host_device.h), or CUDA (core_cuda_test), where the tests skip without one.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core_testing.h"
#include "device_layer.h"

namespace perennial::cuda {

// Why the tests cannot run here; empty: they can.
std::string no_device();
at::Device device_under_test();

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = no_device(); !why.empty()) GTEST_SKIP() << why;
  }
};

inline std::shared_ptr<PeerImpl> on_device(const PeerOptions& options) {
  auto peer = std::make_shared<PeerImpl>(options);
  place_layer(*peer, device_under_test());
  return peer;
}

inline at::Tensor to_device(const at::Tensor& tensor) { return tensor.to(device_under_test()); }

// Query and norm are LibTorch's on the device and our kernels' on the CPU, and exp and erf are
// other libraries': sums of a few dozen terms differ in their last bits, over three steps.
inline constexpr double kTolerance = 1e-4;

inline void expect_near(const at::Tensor& device, const at::Tensor& cpu, const char* what) {
  ASSERT_EQ(device.sizes(), cpu.sizes()) << what;
  if (cpu.numel() == 0) return;
  EXPECT_LE((device.cpu() - cpu).abs().max().item<double>(),
            kTolerance * (1 + cpu.abs().max().item<double>()))
      << what;
}

// As testing::train, of a layer on the device.
inline void train_on_device(PeerImpl& peer, SparseOptimizer& experts, int steps, std::uint64_t seed,
                            std::int64_t tokens = 8) {
  for (int i = 0; i < steps; ++i) {
    testing::train_step(peer, experts,
                        to_device(testing::inputs(seed * 1000 + static_cast<std::uint64_t>(i),
                                                  tokens, peer.options().d_in)));
  }
}

// A store's dense entries and pages, as bytes by name.
inline std::map<std::string, storage::Bytes> content_of(const storage::PageStore& store) {
  std::map<std::string, storage::Bytes> content;
  for (const std::string& name : store.dense_names()) {
    content[name] = value_or_throw(store.read_dense(name));
  }
  for (const storage::PageId& id : store.pages()) {
    const storage::PageShape shape = value_or_throw(store.page_shape(id));
    storage::Bytes payload(shape.payload_bytes());
    throw_if_failed(store.read_page(id, payload));
    content[to_string(id)] = payload;
  }
  return content;
}

}  // namespace perennial::cuda
