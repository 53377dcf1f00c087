// SPDX-License-Identifier: Apache-2.0
// Rotated streams: against a slow reference, exact quarter turns, gradual angles, and refusals.
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "continual/data/data_files.h"
#include "perennial/continual/stream.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {
namespace {

Dataset make_images(std::int64_t n, std::int64_t rows, std::int64_t cols,
                    std::int64_t channels = 1) {
  Dataset data;
  data.image_rows = rows;
  data.image_cols = cols;
  data.image_channels = channels;
  data.x = torch::empty({n, rows * cols * channels}, torch::kByte);
  kernels::RandomStream random(5);
  std::uint8_t* x = data.x.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < data.x.numel(); ++i)
    x[i] = static_cast<std::uint8_t>(random.below(256));
  data.y = torch::arange(n).remainder(2);
  data.label_names = {"a", "b"};
  return data;
}

Stream rotated(StreamOptions options, std::int64_t n, std::int64_t rows, std::int64_t cols,
               std::int64_t channels = 1) {
  options.stream = StreamKind::rotated;
  options.normalize = Normalization::none;
  return {options, TrainTest{make_images(n, rows, cols, channels),
                             make_images(n, rows, cols, channels), "images"}};
}

// Bilinear, zero outside, without rounding of places.
torch::Tensor turned(const torch::Tensor& image, double degrees) {
  const std::int64_t H = image.size(0), W = image.size(1);
  const double a = degrees * M_PI / 180, cy = double(H - 1) / 2, cx = double(W - 1) / 2;
  const auto at = [&](std::int64_t r, std::int64_t c) {
    return r < 0 || c < 0 || r >= H || c >= W ? 0.0 : image[r][c].item<double>();
  };
  torch::Tensor out = torch::zeros({H, W}, torch::kDouble);
  for (std::int64_t r = 0; r < H; ++r) {
    for (std::int64_t c = 0; c < W; ++c) {
      const double right = double(c) - cx, up = cy - double(r);
      const double x = cx + right * std::cos(a) + up * std::sin(a);
      const double y = cy - (-right * std::sin(a) + up * std::cos(a));
      const double fx = x - std::floor(x), fy = y - std::floor(y);
      const auto left = std::int64_t(std::floor(x)), top = std::int64_t(std::floor(y));
      out[r][c] = (1 - fy) * ((1 - fx) * at(top, left) + fx * at(top, left + 1)) +
                  fy * ((1 - fx) * at(top + 1, left) + fx * at(top + 1, left + 1));
    }
  }
  return out;
}

TEST(Rotated, AgreesWithASlowReferenceAtEveryAngle) {
  for (const auto& [rows, cols] : {std::pair{7, 7}, std::pair{6, 6}, std::pair{5, 8}}) {
    const Stream stream = rotated({.experiences = 10}, 3, rows, cols);
    const Dataset data = make_images(3, rows, cols);
    for (std::int64_t e = 0; e < 10; ++e) {
      EXPECT_DOUBLE_EQ(stream.options().angle_of(e), 18.0 * double(e));
      const Batch batch = stream.test_batch(e, 0, 3);
      for (std::int64_t i = 0; i < 3; ++i) {
        const torch::Tensor expected = turned(data.x[i].view({rows, cols}), 18.0 * double(e));
        const torch::Tensor difference =
            (batch.x[i].view({rows, cols}).to(torch::kDouble) - expected).abs();
        // A place that is off by 1/512 of a pixel in each direction moves a value by 2 * 255 / 512.
        EXPECT_LE(difference.max().item<double>(), 1.0) << e << " " << i;
      }
    }
  }
}

TEST(Rotated, QuarterTurnsOfASquareMovePixelsUnchanged) {
  for (const std::int64_t side : {4, 5}) {
    const Stream stream = rotated({.experiences = 6, .angle_step = 90}, 2, side, side);
    const torch::Tensor raw = make_images(2, side, side).x.to(torch::kFloat).view({2, side, side});
    for (std::int64_t e = 0; e < 6; ++e) {
      const torch::Tensor expected = torch::rot90(raw, e, {1, 2});  // counter-clockwise
      EXPECT_TRUE(at::equal(stream.test_batch(e, 0, 2).x.view({2, side, side}), expected)) << e;
    }
    const Stream back = rotated({.experiences = 2, .angle_step = -90}, 2, side, side);
    EXPECT_TRUE(
        at::equal(back.test_batch(1, 0, 2).x.view({2, side, side}), torch::rot90(raw, -1, {1, 2})));
  }
}

TEST(Rotated, TurnsEveryPlaneOfAColourImage) {
  const Stream stream = rotated({.experiences = 2, .angle_step = 37}, 2, 6, 6, 3);
  const torch::Tensor x = stream.test_batch(1, 0, 2).x.view({2, 3, 6, 6});
  Dataset plane = make_images(2, 6, 6, 3);
  for (std::int64_t c = 0; c < 3; ++c) {
    Dataset one = plane;
    one.image_channels = 1;
    one.x = plane.x.view({2, 3, 36}).select(1, c).contiguous();
    const Stream alone({.stream = StreamKind::rotated,
                        .experiences = 2,
                        .angle_step = 37,
                        .normalize = Normalization::none},
                       TrainTest{one, one, "plane"});
    EXPECT_TRUE(at::equal(alone.test_batch(1, 0, 2).x.view({2, 6, 6}), x.select(1, c)));
  }
}

TEST(Rotated, BytesFloatsAndThreadsGiveEqualBits) {
  const Stream bytes = rotated({.experiences = 7}, 200, 9, 9);
  Dataset as_floats = make_images(200, 9, 9);
  as_floats.x = as_floats.x.to(torch::kFloat);
  StreamOptions options = bytes.options();
  const Stream floats(options, TrainTest{as_floats, as_floats, "floats"});
  const int threads = at::get_num_threads();
  const torch::Tensor once = bytes.train_batch(3, 0, 0, 200, 1).x;
  for (const int count : {1, 3}) {
    at::set_num_threads(count);
    EXPECT_TRUE(at::equal(bytes.train_batch(3, 0, 0, 200, 1).x, once));
    EXPECT_TRUE(at::equal(floats.train_batch(3, 0, 0, 200, 1).x, once));
  }
  at::set_num_threads(threads);
}

TEST(Rotated, NormalisesAfterTurningWithWhatTheFirstExperienceShows) {
  StreamOptions options{.stream = StreamKind::rotated, .experiences = 3};
  const Stream stream(options, TrainTest{make_images(20, 5, 5), make_images(4, 5, 5), "images"});
  options.normalize = Normalization::none;
  const Stream raw(options, TrainTest{make_images(20, 5, 5), make_images(4, 5, 5), "images"});
  EXPECT_EQ(stream.preprocessing().mean, Preprocessing::fit(make_images(20, 5, 5).x).mean);
  EXPECT_TRUE(at::allclose(stream.test_batch(2, 0, 4).x,
                           stream.preprocessing().apply(raw.test_batch(2, 0, 4).x)));
  EXPECT_TRUE(at::equal(stream.test_batch(0, 0, 4).x,
                        stream.preprocessing().apply(make_images(4, 5, 5).x)));
}

TEST(Rotated, JointTurnsEachExampleByItsExperiencesAngle) {
  const Stream stream = rotated({.experiences = 4}, 6, 5, 5);
  const Batch whole = stream.joint().train_batch(0, 0, 0, 24, 1);
  for (std::int64_t i = 0; i < 24; ++i) {
    const torch::Tensor same = stream.test_batch(whole.experience[i].item<std::int64_t>(), 0, 6).x;
    EXPECT_EQ((same == whole.x[i]).all(1).sum().item<int>(), 1) << i;
  }
}

// Degrees by which an image of one white pixel to the right of the centre is turned.
double angle_of(const torch::Tensor& row) {
  const torch::Tensor image = row.view({41, 41}).to(torch::kDouble);
  const double mass = image.sum().item<double>();
  const torch::Tensor places = torch::arange(41, torch::kDouble) - 20;
  const double right = (image.sum(0) * places).sum().item<double>() / mass;
  const double up = -(image.sum(1) * places).sum().item<double>() / mass;
  return std::atan2(up, right) * 180 / M_PI;
}

Stream gradual_dots() {
  Dataset dot = make_images(256, 41, 41);
  dot.x.zero_();
  dot.x.select(1, 20 * 41 + 35).fill_(200);
  return {{.stream = StreamKind::rotated,
           .experiences = 4,
           .angle_step = 20,
           .gradual = true,
           .normalize = Normalization::none},
          TrainTest{dot, dot, "dot"}};
}

TEST(Rotated, JointOfAGradualStreamHasAllOfItsAngles) {
  const Stream joint = gradual_dots().joint();
  const Batch pass = joint.train_batch(0, 0, 0, 1024, 1);
  const Batch next = joint.train_batch(0, 1, 0, 1024, 1);
  EXPECT_TRUE(at::equal(joint.train_batch(0, 0, 0, 1024, 1).x, pass.x));
  EXPECT_FALSE(at::equal(next.x, pass.x));
  std::vector<std::vector<double>> angles(4);
  for (std::int64_t i = 0; i < 1024; ++i) {
    angles[static_cast<std::size_t>(pass.experience[i].item<std::int64_t>())].push_back(
        angle_of(pass.x[i]));
  }
  for (int e = 0; e < 4; ++e) {
    SCOPED_TRACE(e);
    std::vector<double>& of = angles[static_cast<std::size_t>(e)];
    ASSERT_EQ(of.size(), 256U);
    std::sort(of.begin(), of.end());
    EXPECT_NEAR(of.front(), 20 * e - 10, 2);
    EXPECT_NEAR(of.back(), 20 * e + 10, 2);
    // Uniform: a standard deviation of 20 / sqrt(12) over 256 of them.
    EXPECT_NEAR(std::accumulate(of.begin(), of.end(), 0.0) / 256, 20 * e, 5 * 5.8 / 16);
    of.erase(std::unique(of.begin(), of.end()), of.end());
    EXPECT_GT(of.size(), 32U);
  }
}

TEST(Rotated, GradualAnglesGrowWithTheStreamAndMeetAtItsBoundaries) {
  const Stream stream = gradual_dots();
  std::vector<double> angles;
  for (std::int64_t e = 0; e < 4; ++e) {
    for (std::int64_t step = 0; step < 16; ++step) {
      angles.push_back(angle_of(stream.train_batch(e, 0, step, 16, 1).x[0]));
    }
  }
  for (std::size_t i = 1; i < angles.size(); ++i) {
    EXPECT_NEAR(angles[i] - angles[i - 1], 20.0 / 16, 1.0) << i;
  }
  EXPECT_NEAR(angles[0], -10, 1.0);
  EXPECT_NEAR(angles[8], 0, 1.5);
  EXPECT_NEAR(angles.back(), 70, 2.0);
  // Test sets have the angle itself.
  const torch::Tensor still = stream.test_batch(0, 0, 1).x[0];
  EXPECT_EQ(still.argmax().item<int>(), 20 * 41 + 35);
}

TEST(Rotated, RefusesWhatCannotBeTurned) {
  Dataset flat = make_images(4, 3, 3);
  flat.image_rows = flat.image_cols = 0;
  const StreamOptions rotate{.stream = StreamKind::rotated, .experiences = 2};
  EXPECT_THROW(Stream(rotate, TrainTest{flat, flat, "rows"}), InvalidOptions);
  EXPECT_THROW(StreamOptions({.angle_step = 10}).validate(), InvalidOptions);
  EXPECT_THROW(StreamOptions({.gradual = true}).validate(), InvalidOptions);
  EXPECT_THROW(StreamOptions({.stream = StreamKind::rotated, .angle_step = 361}).validate(),
               InvalidOptions);
}

}  // namespace
}  // namespace perennial::continual
