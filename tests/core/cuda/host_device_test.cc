// SPDX-License-Identifier: Apache-2.0
// What only the host, taken for a device, can show: a device without room.
#include "host_device.h"

#include "device_testing.h"

namespace perennial::cuda {

std::string no_device() { return ""; }
at::Device device_under_test() { return fake_device(); }

namespace {

TEST(HostDevice, RefusesAPoolThatDoesNotFit) {
  PeerImpl peer(testing::small_options());
  host_device().available = 8 * 8 * 32 * 4 - 1;
  const std::string message =
      testing::message_of<DeviceError>([&] { place_layer(peer, device_under_test()); });
  EXPECT_THAT(message, ::testing::HasSubstr("generation 0 needs 8192 bytes"));
  EXPECT_THAT(message, ::testing::HasSubstr("8191 are available"));
  EXPECT_EQ(peer.pool().device(), nullptr);
  host_device().available = 8 * 8 * 32 * 4;
  place_layer(peer, device_under_test());
  SparseOptimizer experts(peer.pool(), {});
  host_device().available = 100;  // no room for the optimizer's state
  EXPECT_THROW(train_on_device(peer, experts, 1, 1), DeviceError);
  host_device() = {};
  train_on_device(peer, experts, 1, 1);
}

TEST(HostDevice, FetchesOnceWhatAStepTouched) {
  const auto peer = on_device(testing::small_options());
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 1, 1);
  host_device().gathered = 0;
  (void)peer->pool().written_pages(0);
  EXPECT_EQ(host_device().gathered, 2 * static_cast<std::int64_t>(experts.experts_updated()))
      << "weights and state of each";
  (void)peer->pool().written_pages(0);
  EXPECT_EQ(host_device().gathered, 2 * static_cast<std::int64_t>(experts.experts_updated()));
}

}  // namespace
}  // namespace perennial::cuda
