// SPDX-License-Identifier: Apache-2.0
// What only the host, taken for a device, can show: a device without room.
#include "host_device.h"

#include "device_testing.h"
#include "perennial/kernels/cuda/experts.h"
#include "runtime.h"

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
  EXPECT_TRUE(peer.pool().device().is_cpu());
  host_device().available = 8 * 8 * 32 * 4;
  place_layer(peer, device_under_test());
  SparseOptimizer experts(peer.pool(), {});
  host_device().available = 100;  // no room for the optimizer's state
  EXPECT_THROW(train_on_device(peer, experts, 1, 1), DeviceError);
  host_device() = {};
  train_on_device(peer, experts, 1, 1);
}

TEST(HostDevice, RefusesAPoolThatFindsNoPlaceInOnePiece) {
  PeerImpl peer(testing::small_options());
  host_device().largest = 8 * 8 * 32 * 4 - 1;
  const std::string message =
      testing::message_of<DeviceError>([&] { place_layer(peer, device_under_test()); });
  EXPECT_THAT(message, ::testing::HasSubstr("generation 0 needs 8192 bytes"));
  host_device() = {};
  place_layer(peer, device_under_test());
  EXPECT_EQ(testing::evaluate(peer, to_device(testing::inputs(1))).size(0), 8);
}

TEST(HostDevice, AStepWaitsForNothingAndAllocatesNoBuffer) {
  PeerOptions options = testing::small_options();
  options.query_norm = QueryNorm::none;
  const auto peer = on_device(options);
  SparseOptimizer experts(peer->pool(), {});
  train_on_device(*peer, experts, 2, 1);
  const at::Tensor x = to_device(testing::inputs(5));
  testing::backward(*peer, x);
  host_device() = {};
  experts.step();
  EXPECT_EQ(host_device().waits, 0);
  EXPECT_EQ(host_device().allocations, 2) << "the number of experts, and their sum";
  host_device() = {};
  testing::backward(*peer, x);
  EXPECT_EQ(host_device().waits, 0);
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

class FakeDevice : public ::testing::Test {
 protected:
  static at::Tensor there(const at::Tensor& tensor) { return tensor.to(fake_device()); }
  const at::Tensor here_ = testing::inputs(1, 3, 4);
  const at::Tensor there_ = there(here_);
};

TEST_F(FakeDevice, ComputesAsTheCpu) {
  EXPECT_TRUE(testing::same_bits((there_ * 2 + there_).t().cpu(), (here_ * 2 + here_).t()));
  EXPECT_TRUE(testing::same_bits(there_.matmul(there_.t()).cpu(), here_.matmul(here_.t())));
  at::Tensor sum = there(at::zeros({3, 4}));
  sum.narrow(1, 1, 2).add_(there_.narrow(1, 0, 2)).clamp_min_(0);
  EXPECT_TRUE(testing::same_bits(sum.narrow(1, 1, 2).cpu(), here_.narrow(1, 0, 2).clamp_min(0)));
  EXPECT_TRUE(std::isnan(at::empty({1}, fake_device()).item<float>()));
}

TEST_F(FakeDevice, RefusesOperandsOfTheCpu) {
  const at::Tensor rows = at::tensor({2, 0}), one = at::scalar_tensor(2);
  const auto refused = [](const std::function<void()>& work) {
    EXPECT_THAT(testing::message_of<c10::Error>(work),
                ::testing::HasSubstr("Expected all tensors to be on the same device"));
  };
  refused([&] { (void)(there_ + here_); });
  refused([&] { (void)(here_ + there_); });
  refused([&] { here_.clone().add_(there_); });
  refused([&] { one.clone().add_(there_[0][0]); });
  refused([&] { (void)at::cat({there_, here_}); });
  refused([&] { (void)at::linear(there_, here_); });
  refused([&] { (void)there_.index_select(0, rows); });
  EXPECT_THROW((void)here_.index({there(rows)}), c10::Error);
  // As CUDA allows.
  EXPECT_TRUE(testing::same_bits((there_ * one).cpu(), here_ * 2));
  EXPECT_TRUE(testing::same_bits(there_.index({rows}).cpu(), here_.index({rows})));
  EXPECT_TRUE(testing::same_bits(here_.clone().copy_(there_), here_));
}

TEST_F(FakeDevice, RefusesAGeneratorOfTheCpu) {
  EXPECT_THROW((void)at::randperm(5, at::detail::createCPUGenerator(),
                                  at::TensorOptions().device(fake_device())),
               c10::Error);
}

TEST_F(FakeDevice, CopiesThatNeedNotBeWaitedForComeLate) {
  at::Tensor source = here_.clone(), back = at::zeros({3, 4});
  const at::Tensor to = at::empty({3, 4}, fake_device());
  to.copy_(source, /*non_blocking=*/true);
  source.zero_();
  EXPECT_EQ(to.abs().sum().item<float>(), 0) << "too early";
  back.copy_(there_, /*non_blocking=*/true);
  EXPECT_TRUE(testing::same_bits(back, at::zeros({3, 4}))) << "not waited for";
  (void)to.cpu();
  EXPECT_TRUE(testing::same_bits(back, here_));
}

TEST_F(FakeDevice, KernelsTakeNoPointersOfTheHost) {
  const std::vector<float> host(4);
  const auto stream = current_stream(fake_device());
  EXPECT_NE(kernels::cuda::score_forward(kernels::ScoreFunction::softmax, 1, 4, host.data(),
                                         there_.mutable_data_ptr<float>(), 1, stream),
            0);
}

using FakeDeviceDeathTest = FakeDevice;

TEST_F(FakeDeviceDeathTest, TheHostCannotReachItsMemory) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(std::printf("%f", *there_.const_data_ptr<float>()),
               "the host touched the device's memory");
  EXPECT_DEATH(*there_.mutable_data_ptr<float>() = 1, "the host touched the device's memory");
}

}  // namespace
}  // namespace perennial::cuda
