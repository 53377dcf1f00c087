// SPDX-License-Identifier: Apache-2.0
// Features that never learn: against torch's own convolution, and bits that ignore the batch.
#include "perennial/core/fixed_features.h"

#include "core/core_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

constexpr ImageShape kImage{9, 8};
constexpr std::int64_t kPixels = 72;

FixedFeatureOptions convolution(std::int64_t grid = 3) {
  return {.kind = FeatureKind::convolution, .filters = 5, .filter_size = 4, .grid = grid};
}

TEST(FixedFeatures, ConvolutionIsTorchsWithReluAndAdaptiveAverage) {
  // The filters themselves are read off images of one bright pixel: a filter's response there is
  // relu(w), and with the sign turned relu(-w).
  for (const std::int64_t grid : {1, 2, 3, 5}) {
    const FixedFeatures features(kPixels, kImage, convolution(grid));
    EXPECT_EQ(features.size(), 5 * grid * grid);
    const FixedFeatures single(16, {4, 4}, convolution(1));  // one position: the filter on itself
    const at::Tensor unit = at::eye(16);
    const at::Tensor filters =
        (single(unit) - single(-unit)).t().reshape({5, 1, 4, 4});  // (F, 1, s, s)
    const at::Tensor x = inputs(3, 7, kPixels);
    const at::Tensor response =
        at::conv2d(x.reshape({7, 1, kImage.rows, kImage.cols}), filters).relu();
    const at::Tensor expected =
        at::adaptive_avg_pool2d(response, {grid, grid}).permute({0, 2, 3, 1}).reshape({7, -1});
    // Sums of 16 products of unit scale.
    EXPECT_TRUE(at::allclose(features(x), expected, 1e-5, 1e-5)) << grid;
  }
}

TEST(FixedFeatures, RandomIsTheProjectionsPositivePart) {
  FixedFeatureOptions options;
  options.count = 40;
  const FixedFeatures features(12, {}, options);
  const at::Tensor x = inputs(1, 9);
  const at::Tensor f = features(x);
  EXPECT_EQ(f.sizes(), (std::vector<std::int64_t>{9, 40}));
  EXPECT_GE(f.min().item<float>(), 0);
  EXPECT_GT(f.gt(0).sum().item<std::int64_t>(), 90);
  // Affine where it is positive: the middle of two inputs has the middle of their features.
  const at::Tensor two = at::stack({x[0], x[1]}), middle = ((x[0] + x[1]) / 2).unsqueeze(0);
  const at::Tensor ends = features(two), between = features(middle)[0];
  const at::Tensor both = ends[0].gt(0).logical_and(ends[1].gt(0));
  EXPECT_GT(both.sum().item<std::int64_t>(), 3);
  EXPECT_TRUE(at::allclose(between.masked_select(both),
                           ((ends[0] + ends[1]) / 2).masked_select(both), 1e-4, 1e-5));
}

TEST(FixedFeatures, BitsDependOnNeitherTheBatchNorTheThreads) {
  for (const FeatureKind kind : {FeatureKind::random, FeatureKind::convolution}) {
    FixedFeatureOptions options = convolution();
    options.kind = kind;
    options.count = 33;
    const FixedFeatures features(kPixels, kImage, options);
    const at::Tensor x = inputs(5, 41, kPixels);
    const at::Tensor all = features(x);
    for (std::int64_t i = 0; i < 41; i += 7) {
      EXPECT_TRUE(same_bits(features(x.slice(0, i, i + 1)), all.slice(0, i, i + 1)));
    }
    EXPECT_TRUE(same_bits(features(x.t().contiguous().t()), all)) << "another memory layout";
    const int threads = at::get_num_threads();
    for (const int n : {1, 3}) {
      at::set_num_threads(n);
      EXPECT_TRUE(same_bits(features(x), all)) << n;
    }
    at::set_num_threads(threads);
    EXPECT_EQ(features(at::empty({0, kPixels})).size(0), 0);
  }
}

TEST(FixedFeatures, FollowTheSeedAndTheStream) {
  const at::Tensor x = inputs(5, 3, kPixels);
  FixedFeatureOptions options = convolution();
  const at::Tensor f = FixedFeatures(kPixels, kImage, options)(x);
  EXPECT_TRUE(same_bits(FixedFeatures(kPixels, kImage, options)(x), f));
  options.seed = 2;
  EXPECT_FALSE(same_bits(FixedFeatures(kPixels, kImage, options)(x), f));
  options = convolution();
  options.stream += 16;
  EXPECT_FALSE(same_bits(FixedFeatures(kPixels, kImage, options)(x), f));
}

TEST(FixedFeatures, RefusesWhatIsNoImage) {
  const auto refusal = [](std::int64_t d_in, ImageShape image, const FixedFeatureOptions& options) {
    return message_of<InvalidOptions>([&] { (void)FixedFeatures(d_in, image, options); });
  };
  EXPECT_THAT(refusal(kPixels, {}, convolution()), HasSubstr("images"));
  EXPECT_THAT(refusal(70, kImage, convolution()), HasSubstr("9 x 8"));
  EXPECT_THAT(refusal(kPixels, kImage, convolution(6)), HasSubstr("too small"));
  const FixedFeatures features(kPixels, kImage, convolution());
  EXPECT_THAT(message_of<Error>([&] { (void)features(at::ones({2, 3})); }), HasSubstr("72"));
  EXPECT_THROW((void)features(at::ones({2, kPixels}, at::kDouble)), Error);
}

}  // namespace
}  // namespace perennial
