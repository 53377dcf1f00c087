// SPDX-License-Identifier: Apache-2.0
// Tensors as bytes: the format, and what is refused when the bytes are not such a tensor.
#include "perennial/core/dense_state.h"

#include <boost/json/object.hpp>

#include "core/core_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DenseState, TensorsComeBackBitForBit) {
  at::Tensor special = at::tensor({0.0F, -0.0F, INFINITY, NAN, 1e-45F, 3.4e38F});
  const std::vector<at::Tensor> tensors = {
      special,
      normal_tensor({3, 4, 5}, 1),
      normal_tensor({3, 4}, 2).t(),  // not contiguous
      normal_tensor({6, 6}, 3).to(at::kDouble)[2],
      at::arange(10, at::kLong),
      at::arange(7, at::kByte),
      at::empty({0, 3}),
      at::scalar_tensor(3.5),
      normal_tensor({2}, 4).requires_grad_(),
  };
  for (const at::Tensor& tensor : tensors) {
    EXPECT_TRUE(same_bits(tensor_from(bytes_from(tensor), "t"), tensor)) << tensor.sizes();
  }
}

TEST(DenseState, FormatIsFixed) {
  const storage::Bytes bytes = bytes_from(at::tensor({1.0F, -2.0F}).view({1, 2}));
  const unsigned char expected[] = {'P', 'T', 'E', 'N', 1, 0, 0,    0,    0, 0, 0, 0,   2, 0,
                                    0,   0,   1,   0,   0, 0, 0,    0,    0, 0, 2, 0,   0, 0,
                                    0,   0,   0,   0,   0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0};
  ASSERT_EQ(bytes.size(), sizeof(expected));
  EXPECT_EQ(std::memcmp(bytes.data(), expected, sizeof(expected)), 0);
}

TEST(DenseState, EveryTruncationAndExtensionIsNoticed) {
  storage::Bytes bytes = bytes_from(normal_tensor({2, 3}, 1));
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    const storage::Bytes part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_THAT(message_of<DataError>([&] { (void)tensor_from(part, "the name"); }),
                HasSubstr("'the name'"));
  }
  bytes.push_back(std::byte{0});
  EXPECT_THAT(message_of<DataError>([&] { (void)tensor_from(bytes, "n"); }), HasSubstr("length"));
}

TEST(DenseState, BadHeadersAreDataErrorsAndAllocateNothing) {
  const storage::Bytes good = bytes_from(normal_tensor({2, 3}, 1));
  const auto with = [&](std::size_t at, std::initializer_list<int> values) {
    storage::Bytes bytes = good;
    for (const int value : values) bytes[at++] = static_cast<std::byte>(value);
    return bytes;
  };
  const auto refusal = [](const storage::Bytes& bytes) {
    return message_of<DataError>([&] { (void)tensor_from(bytes, "n"); });
  };
  EXPECT_THAT(refusal(with(0, {'Q'})), HasSubstr("magic"));
  EXPECT_THAT(refusal(with(4, {2})), HasSubstr("version"));
  EXPECT_THAT(refusal(with(8, {4})), HasSubstr("element type"));
  EXPECT_THAT(refusal(with(8, {255, 255, 255, 255})), HasSubstr("element type"));
  EXPECT_THAT(refusal(with(12, {17})), HasSubstr("dimensions"));
  EXPECT_THAT(refusal(with(12, {255, 255, 255, 255})), HasSubstr("dimensions"));
  EXPECT_THAT(refusal(with(16, {3})), HasSubstr("length"));
  EXPECT_THAT(refusal(with(16, {255, 255, 255, 255, 255, 255, 255, 255})), HasSubstr("beyond"));
  // 2^32 * 2^32 elements would wrap to 0.
  EXPECT_THAT(refusal(with(16, {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0})),
              HasSubstr("beyond"));
  EXPECT_THAT(refusal(with(8, {1})), HasSubstr("length")) << "the same bytes as doubles";
}

TEST(DenseState, OnlyTheFourElementTypes) {
  EXPECT_THAT(message_of<Error>([] { (void)bytes_from(at::ones({1}, at::kHalf)); }),
              AllOf(HasSubstr("float32"), HasSubstr("uint8")));
  EXPECT_THROW((void)bytes_from(at::ones({1}, at::kBool)), Error);
}

TEST(DenseState, ARecordThatCouldNotBeReadBackIsRefused) {
  EXPECT_EQ(record_text({{"label", "gr\xC3\xBCn"}}), "{\"label\":\"gr\xC3\xBCn\"}");
  EXPECT_THAT(message_of<Error>([] {
                record_text({{"label", "gr\xFCn"}});
              }),
              HasSubstr("could not be read back"));
}

TEST(DenseState, TextComesBack) {
  const std::string text("a\0b\xff", 4);
  EXPECT_EQ(text_from(bytes_from(text)), text);
  EXPECT_TRUE(bytes_from("").empty());
}

}  // namespace
}  // namespace perennial
