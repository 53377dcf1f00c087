// SPDX-License-Identifier: Apache-2.0
// IDX files and folders of them: what is read, and that hostile or mislabelled files are refused.
#include <ATen/ops/equal.h>

#include "continual/data/data_files.h"
#include "perennial/continual/dataset.h"

namespace perennial::continual {
namespace {

const std::string kSix = "\x01\x02\x03\x04\x05\x06";

TEST(Idx, ReadsPlainAndGzipByContentWhateverTheName) {
  const TempFolder folder;
  const std::string bytes = idx_bytes({3, 1, 2}, kSix);
  const torch::Tensor plain = read_idx(folder.write("images.gz", bytes));
  const torch::Tensor packed = read_idx(folder.write("images", gzip(bytes)));
  EXPECT_EQ(plain.sizes(), (std::vector<std::int64_t>{3, 1, 2}));
  EXPECT_EQ(plain.scalar_type(), torch::kByte);
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(plain.view(6)[i].item<int>(), i + 1);
  EXPECT_TRUE(at::equal(plain, packed));
}

TEST(Idx, RefusesWhatIsNoIdxFile) {
  const TempFolder folder;
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& parts) {
    const auto file = folder.write("bad-file", bytes);
    expect_data_error([&] { read_idx(file); }, parts);
    expect_data_error([&] { read_idx(file); }, {"bad-file"});
  };
  refused("", {"truncated"});
  refused(std::string("\0\0\x08", 3), {"truncated", "magic"});
  refused("P5 28 28 255 ", {"0x50", "0x00 0x00 was expected"});
  refused(std::string("\0\0\x0D\x01\0\0\0\x01....", 12), {"0x0d", "0x08"});
  refused(std::string("\0\0\x08\0", 4), {"0 dimensions"});
  refused(std::string("\0\0\x08\xFF", 4), {"255 dimensions"});
  refused(std::string("\0\0\x08\x03\0\0\0\x01\0\0", 10), {"dimension"});
}

TEST(Idx, ChecksDimensionsAgainstTheLengthBeforeAllocating) {
  const TempFolder folder;
  const auto refused = [&](const std::string& bytes, const std::vector<std::string>& parts) {
    expect_data_error([&] { read_idx(folder.write("sizes", bytes)); }, parts);
  };
  refused(idx_bytes({3, 1, 2}, "12345"), {"3 x 1 x 2", "5"});
  refused(idx_bytes({3, 1, 2}, kSix + "7"), {"3 x 1 x 2 = 6", "more"});
  // Products of 2^96 and 2^63: neither may wrap to something small.
  refused(idx_bytes({0x80000000, 0x80000000, 0x80000000, 8}, ""), {"2147483648"});
  refused(idx_bytes({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, kSix), {"4294967295"});
  // 4 GB promised by a few packed bytes.
  refused(gzip(idx_bytes({0xFFFFFFFF}, kSix)), {"4294967295", "at most"});
  // A plausible size that the packed bytes do not hold.
  refused(gzip(idx_bytes({7}, kSix)), {"truncated", "7", "6"});
  refused(gzip(idx_bytes({5}, kSix)), {"more"});
}

TEST(Idx, NoticesDamagedAndTruncatedGzip) {
  const TempFolder folder;
  std::string values;
  for (int i = 0; i < 4000; ++i) values += static_cast<char>((i * i) >> 3);
  const std::string packed = gzip(idx_bytes({4000}, values));
  for (const std::size_t kept : {packed.size() - 1, packed.size() - 8, packed.size() / 2}) {
    expect_data_error([&] { read_idx(folder.write("cut", packed.substr(0, kept))); }, {"cut"});
  }
  for (const std::size_t at : {packed.size() - 6, packed.size() / 2}) {
    std::string flipped = packed;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    expect_data_error([&] { read_idx(folder.write("flipped", flipped)); }, {"flipped"});
  }
}

TEST(Idx, NamesMissingFilesAndFolders) {
  const TempFolder folder;
  expect_data_error([&] { read_idx(folder.path() / "absent"); }, {"absent", "no such file"});
  expect_data_error([&] { read_idx(folder.path()); }, {"folder"});
}

TEST(IdxDataset, ReadsAFolder) {
  const TempFolder folder;
  write_idx_dataset(folder, "mine", 12, 6, 3);
  const TrainTest data = load_idx_dataset((folder.path() / "mine").string());
  EXPECT_EQ(data.name, "mine");
  EXPECT_EQ(data.train.size(), 12);
  EXPECT_EQ(data.test.size(), 6);
  EXPECT_EQ(data.train.features(), 4);
  EXPECT_EQ(data.train.image_rows, 2);
  EXPECT_EQ(data.train.image_cols, 2);
  EXPECT_EQ(data.train.label_names, (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(data.train.x[7][3].item<int>(), 7);
  EXPECT_EQ(data.train.y[7].item<int>(), 1);
  // With a slash at its end it is the same folder.
  EXPECT_EQ(load_idx_dataset((folder.path() / "mine/").string()).name, "mine");
}

TEST(IdxDataset, RefusesMislabelledFolders) {
  const TempFolder folder;
  const auto load = [&] { load_idx_dataset((folder.path() / "d").string()); };
  const std::string images = "d/train-images-idx3-ubyte", labels = "d/train-labels-idx1-ubyte";

  write_idx_dataset(folder, "d", 6, 3, 3);
  folder.write(images, idx_bytes({6}, kSix));
  expect_data_error(load, {"train-images", "holds labels", "images (3 dimensions)"});

  write_idx_dataset(folder, "d", 6, 3, 3);
  folder.write(labels, idx_bytes({6, 1, 1}, kSix));
  expect_data_error(load, {"train-labels", "images", "labels (1 dimension)"});

  write_idx_dataset(folder, "d", 6, 3, 3);
  folder.write(labels, idx_bytes({5}, "01234"));
  expect_data_error(load, {"train-labels", "5 labels", "6 images"});

  write_idx_dataset(folder, "d", 6, 3, 3);
  folder.write("d/t10k-labels-idx1-ubyte", idx_bytes({3}, std::string("\0\1\7", 3)));
  expect_data_error(load, {"test set", "example 2", "label 7", "3 classes"});

  write_idx_dataset(folder, "d", 6, 3, 3);
  folder.write("d/t10k-images-idx3-ubyte", idx_bytes({3, 1, 2}, kSix));
  expect_data_error(load, {"4 features in train", "2 in test"});

  folder.write(images, idx_bytes({0, 28, 28}, ""));
  folder.write(labels, idx_bytes({0}, ""));
  expect_data_error(load, {"no pixels"});

  std::filesystem::remove(folder.path() / labels);
  expect_data_error(load, {"neither train-labels-idx1-ubyte nor"});
}

TEST(IdxDataset, SaysWhereFashionMnistShouldBe) {
  const TempFolder folder;
  const ScopedEnvironment data("PERENNIAL_DATA", folder.path().c_str());
  expect_data_error([] { load_idx_dataset("fashion-mnist"); },
                    {"dataset-fashion-mnist", "PERENNIAL_DATA", folder.path().string()});
  expect_data_error([] { load_idx_dataset("no-such-folder"); }, {"no-such-folder"});
  write_idx_dataset(folder, "fashion-mnist", 20, 10, 10);
  EXPECT_EQ(load_idx_dataset("fashion-mnist").train.label_names[9], "Ankle boot");
}

TEST(IdxDataset, ReadsTheRealFashionMnist) {
  const ScopedEnvironment data("PERENNIAL_DATA", nullptr);
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) {
    GTEST_SKIP() << "the package dataset-fashion-mnist is not installed";
  }
  const TrainTest fashion = load_idx_dataset("fashion-mnist");
  EXPECT_EQ(fashion.name, "fashion-mnist");
  EXPECT_EQ(fashion.train.size(), 60000);
  EXPECT_EQ(fashion.test.size(), 10000);
  EXPECT_EQ(fashion.train.features(), 784);
  EXPECT_EQ(fashion.train.label_names[0], "T-shirt/top");
  // The published mean and deviation of its training pixels.
  const Preprocessing fitted = Preprocessing::fit(fashion.train.x);
  EXPECT_NEAR(fitted.mean / 255, 0.2860, 5e-5);
  EXPECT_NEAR(fitted.deviation / 255, 0.3530, 5e-5);
}

}  // namespace
}  // namespace perennial::continual
