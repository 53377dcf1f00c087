// SPDX-License-Identifier: Apache-2.0
// Image files and folders of them, against files whose bytes the tests made.
#include "data/image.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <jpeglib.h>
#include <png.h>

#include <cstdio>

#include "continual/data/data_files.h"
#include "perennial/continual/dataset.h"

namespace perennial::continual {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string png(std::uint32_t rows, std::uint32_t cols, std::uint32_t format,
                const std::string& values) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = cols;
  image.height = rows;
  image.format = format;
  png_alloc_size_t size = 0;
  EXPECT_TRUE(png_image_write_to_memory(&image, nullptr, &size, 0, values.data(), 0, nullptr));
  std::string bytes(size, '\0');
  EXPECT_TRUE(png_image_write_to_memory(&image, bytes.data(), &size, 0, values.data(), 0, nullptr));
  bytes.resize(size);
  return bytes;
}

std::string jpeg(unsigned rows, unsigned cols, int channels, const std::string& values) {
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* out = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &out, &size);
  state.image_width = cols;
  state.image_height = rows;
  state.input_components = channels;
  state.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&state);
  jpeg_set_quality(&state, 100, TRUE);
  jpeg_start_compress(&state, TRUE);
  while (state.next_scanline < rows) {
    auto* line = reinterpret_cast<JSAMPROW>(const_cast<char*>(
        values.data() + state.next_scanline * cols * static_cast<unsigned>(channels)));
    jpeg_write_scanlines(&state, &line, 1);
  }
  jpeg_finish_compress(&state);
  std::string bytes(reinterpret_cast<const char*>(out), size);
  jpeg_destroy_compress(&state);
  std::free(out);
  return bytes;
}

std::string ramp(std::size_t count, int from = 0) {
  std::string values;
  for (std::size_t i = 0; i < count; ++i) values += static_cast<char>((from + 7 * i) % 256);
  return values;
}

std::string text_of(const std::vector<std::uint8_t>& values) {
  return {values.begin(), values.end()};
}

class ImageFiles : public ::testing::Test {
 protected:
  Image read(const std::string& bytes) { return read_image(folder_.write("file", bytes)); }
  TempFolder folder_;
};

TEST_F(ImageFiles, GiveTheBytesThatWereWritten) {
  const std::string grey = ramp(6), colours = ramp(18);
  for (const std::string& bytes : {png(2, 3, PNG_FORMAT_GRAY, grey), "P5 3 2 255\n" + grey,
                                   "P5\n# a comment\n3\t2\n# another\n255\n" + grey,
                                   std::string("P2 3 2 255\n0 7 14\n21 28 # five\n35\n")}) {
    const Image image = read(bytes);
    EXPECT_EQ(image.rows, 2);
    EXPECT_EQ(image.cols, 3);
    EXPECT_EQ(image.channels, 1);
    EXPECT_EQ(text_of(image.values), grey);
  }
  for (const std::string& bytes : {png(2, 3, PNG_FORMAT_RGB, colours), "P6 3 2 255\n" + colours}) {
    const Image image = read(bytes);
    EXPECT_EQ(image.channels, 3);
    EXPECT_EQ(text_of(image.values), colours);
  }
  // Palette, transparency, other largest values, two bytes a value.
  const std::string half("\x40\x80\xC0\x00\x40\x80\xC0\xFF", 8);
  const Image with_alpha = read(png(1, 2, PNG_FORMAT_RGBA, half));
  EXPECT_EQ(text_of(with_alpha.values), std::string("\0\0\0\x40\x80\xC0", 6));
  EXPECT_EQ(text_of(read(std::string("P5 2 1 15 \x0F\x03", 12)).values), "\xFF\x33");
  EXPECT_EQ(text_of(read(std::string("P5 2 1 65535 \xFF\xFF\x80\x00", 17)).values), "\xFF\x80");
}

TEST_F(ImageFiles, OfJpegAreWithinItsLoss) {
  for (const int channels : {1, 3}) {
    const std::string values(static_cast<std::size_t>(64 * channels), '\x63');
    const Image image = read(jpeg(8, 8, channels, values));
    EXPECT_EQ(image.rows, 8);
    EXPECT_EQ(image.channels, channels);
    ASSERT_EQ(image.values.size(), values.size());
    for (const std::uint8_t value : image.values) EXPECT_NEAR(value, 0x63, 2);
  }
}

TEST_F(ImageFiles, ThatAreDamagedAreNamedByWhatIsWrong) {
  const auto refused = [&](const std::string& bytes, const char* word) {
    EXPECT_THAT([&] { read(bytes); }, ThrowsMessage<DataError>(HasSubstr(word)));
  };
  const std::string whole = png(20, 20, PNG_FORMAT_GRAY, ramp(400));
  refused("", "no PNG");
  refused("hello", "no PNG");
  for (std::size_t size = 8; size + 20 < whole.size(); size += 7)
    refused(whole.substr(0, size), "PNG");
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 1);
  refused(flipped, "PNG");
  const std::string photo = jpeg(40, 40, 3, ramp(4800));
  for (std::size_t size = 4; size + 2 < photo.size(); size += 41) {
    refused(photo.substr(0, size), "JPEG");
  }
  refused("P5 3 2 255\n12345", "ends before");
  refused("P5 100000 100000 255\n", "2^26");
  refused("P5 3 0 255\n", "2^26");
  refused("P5 3 x 255\n", "whole number");
  refused("P2 2 1 255\n3", "ends before");
  refused("P2 2 1 255\n3 300", "whole number");
  refused("P5 2 1 0\n12", "largest value");
}

class ImageFolder : public ImageFiles {
 protected:
  // One of 2 x 2 pixels, all of one value.
  void grey(const std::string& name, int value) {
    folder_.write("data/" + name,
                  png(2, 2, PNG_FORMAT_GRAY, std::string(4, static_cast<char>(value))));
  }
  TrainTest load(const TableOptions& options = {}, const std::vector<std::string>& known = {}) {
    return load_dataset((folder_.path() / "data").string(), options, 1, known);
  }
};

TEST_F(ImageFolder, ClassesAreTheNamesOfItsFolders) {
  for (int i = 0; i < 5; ++i) {
    const std::string number = std::to_string(i);
    grey("cat/" + number + ".png", i);
    grey("ant/" + number + ".png", 100 + i);
    grey("bee/" + number + ".png", 200 + i);
  }
  folder_.write("data/.hidden/x", "?");
  folder_.write("data/ant/.DS_Store", "?");
  const TrainTest data = load();
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"ant", "bee", "cat"}));
  EXPECT_EQ(data.train.size(), 12);  // one of five is kept for testing
  EXPECT_EQ(data.test.size(), 3);
  EXPECT_EQ(data.train.image_rows, 2);
  EXPECT_EQ(data.train.image_cols, 2);
  EXPECT_EQ(data.train.image_channels, 1);
  EXPECT_THAT(data.notes, ::testing::ElementsAre(HasSubstr("has no test part")));
  for (const Dataset* part : {&data.train, &data.test}) {
    for (std::int64_t i = 0; i < part->size(); ++i) {
      const int value = part->x[i][0].item<int>();
      EXPECT_EQ(part->y[i].item<int>(), value >= 200 ? 1 : value >= 100 ? 0 : 2);
      EXPECT_TRUE(part->x[i].eq(value).all().item<bool>());
    }
  }
  // What was learnt before keeps its numbers.
  EXPECT_EQ(load({}, {"cat", "dog"}).train.label_names,
            (std::vector<std::string>{"cat", "dog", "ant", "bee"}));
}

TEST_F(ImageFolder, NumbersAreInTheirOrderAndPartsAreTakenAsTheyAre) {
  grey("train/10/a.png", 10);
  grey("train/2/a.png", 2);
  grey("train/2/b.png", 3);
  grey("test/10/a.png", 11);
  const TrainTest data = load();
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"2", "10"}));
  EXPECT_TRUE(at::equal(data.train.y, torch::tensor({1, 0, 0}, torch::kLong)));
  EXPECT_TRUE(at::equal(data.test.y, torch::tensor({1}, torch::kLong)));
  EXPECT_EQ(data.test.x[0][3].item<int>(), 11);
  EXPECT_TRUE(data.notes.empty());
  grey("test/3/a.png", 1);
  EXPECT_THAT([&] { load(); }, ThrowsMessage<DataError>(HasSubstr("no class 3")));
}

TEST_F(ImageFolder, GreyImagesBesideColouredOnesHaveThreeEqualPlanes) {
  grey("a/1.png", 9);
  grey("a/2.png", 9);
  folder_.write("data/b/1.ppm", "P6 2 2 255\n" + ramp(12));
  folder_.write("data/b/2.ppm", "P6 2 2 255\n" + ramp(12));
  const TrainTest data = load();
  EXPECT_EQ(data.train.image_channels, 3);
  ASSERT_EQ(data.train.features(), 12);
  EXPECT_TRUE(data.train.x[0].eq(9).all().item<bool>());
  // Planes one after the other: red is 0, 21, 42, 63.
  EXPECT_TRUE(
      at::equal(data.train.x[1],
                torch::tensor({0, 21, 42, 63, 7, 28, 49, 70, 14, 35, 56, 77}, torch::kByte)));
}

TEST_F(ImageFolder, WhatIsNoImageOfTheSizeIsRefusedOrLeftOutAndNamed) {
  for (const char* name : {"a/1.png", "a/2.png", "b/1.png", "b/2.png"}) grey(name, 1);
  folder_.write("data/a/9.png", png(3, 2, PNG_FORMAT_GRAY, ramp(6)));
  EXPECT_THAT([&] { load(); },
              ThrowsMessage<DataError>(HasSubstr("a/9.png is of 3 x 2 pixels, the first image of "
                                                 "2 x 2")));
  folder_.write("data/b/notes.txt", "hello");
  folder_.write("data/b/deeper/1.png", "?");
  TableOptions options;
  options.bad_rows = BadRows::skip;
  const TrainTest data = load(options);
  EXPECT_EQ(data.train.size() + data.test.size(), 4);
  ASSERT_FALSE(data.notes.empty());
  EXPECT_THAT(data.notes[0], HasSubstr("3 of 7 images skipped: a/9.png is of 3 x 2"));
  EXPECT_THAT(data.notes[0], HasSubstr("b/notes.txt is no PNG"));
  EXPECT_THAT(data.notes[0], HasSubstr("b/deeper is a folder"));
  options.header = HeaderChoice::yes;
  EXPECT_THROW(load(options), InvalidOptions) << "nothing has a header here";
}

TEST_F(ImageFolder, RowsForPredictionAreAnImageOrAFolderOfThem) {
  grey("a/1.png", 1);
  grey("a/2.png", 2);
  const torch::Tensor rows = read_rows(folder_.path() / "data/a");
  EXPECT_TRUE(at::equal(rows, torch::tensor({{1, 1, 1, 1}, {2, 2, 2, 2}}, torch::kByte)));
  EXPECT_TRUE(at::equal(read_rows(folder_.path() / "data/a/2.png"), rows.slice(0, 1)));
  EXPECT_THAT([&] { read_rows(folder_.path() / "data"); },
              ThrowsMessage<DataError>(HasSubstr("is a folder")));
  folder_.write("data/a/3.png", "hello");
  EXPECT_THAT([&] { read_rows(folder_.path() / "data/a"); },
              ThrowsMessage<DataError>(HasSubstr("3.png is no PNG")));
}

}  // namespace
}  // namespace perennial::continual
