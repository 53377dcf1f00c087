// SPDX-License-Identifier: Apache-2.0
// The device of core_cuda_test, and what is said of a machine without one.
#include "device_testing.h"
#include "perennial/core/cuda.h"

namespace perennial::cuda {

std::string no_device() {
  try {
    (void)require_device();
    return "";
  } catch (const DeviceError& error) {
    return error.what();
  }
}
at::Device device_under_test() { return {at::kCUDA, 0}; }

namespace {

TEST(CudaDevice, IsThereOrIsMissedInOneLine) {
  PeerImpl peer(testing::small_options());
  const std::string missing = no_device();
  if (missing.empty()) {
    place_on(peer, at::kCUDA);
    EXPECT_TRUE(testing::evaluate(peer, to_device(testing::inputs(1))).is_cuda());
    place_on(peer, at::kCPU);
    EXPECT_THAT(testing::message_of<DeviceError>([&] { require_device(1000); }),
                ::testing::HasSubstr("cuda:1000"));
  } else {
    EXPECT_EQ(testing::message_of<DeviceError>([&] { place_on(peer, at::kCUDA); }), missing);
    EXPECT_EQ(missing.find('\n'), std::string::npos);
  }
  EXPECT_TRUE(testing::evaluate(peer, testing::inputs(1)).is_cpu());
}

}  // namespace
}  // namespace perennial::cuda
