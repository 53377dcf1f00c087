// SPDX-License-Identifier: Apache-2.0
// The binary versions of CIFAR-10 and CIFAR-100: records of one or two label bytes and 3,072
// pixels, a red, a green and a blue plane of 32 x 32.
#include <ATen/ops/empty.h>

#include <array>
#include <cstring>

#include "data/byte_source.h"
#include "data/readers.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kSide = 32, kPlanes = 3, kPixels = kPlanes * kSide * kSide;

// A record begins with `label_bytes` bytes, of which the last one is the label.
struct Version {
  const char* name;
  std::size_t label_bytes;
  std::int64_t classes;
};
constexpr Version kCifar10{"CIFAR-10", 1, 10};
constexpr Version kCifar100{"CIFAR-100", 2, 100};

std::filesystem::path find_file(const std::filesystem::path& folder, const std::string& name) {
  for (const char* ending : {"", ".gz"}) {
    std::filesystem::path file = folder / (name + ending);
    std::error_code error;
    if (std::filesystem::exists(file, error)) return file;
  }
  throw DataError(folder.string() + ": " + name + " is not there");
}

Dataset read_files(const std::vector<std::filesystem::path>& files, const Version& version) {
  const std::size_t record = version.label_bytes + static_cast<std::size_t>(kPixels);
  std::vector<std::string> contents;
  std::size_t count = 0;
  for (const std::filesystem::path& file : files) {
    ByteSource source(file);
    const std::string& content = contents.emplace_back(source.rest());
    if (content.empty() || content.size() % record != 0) {
      source.fail(std::string(version.name) + " has records of " + std::to_string(record) +
                  " bytes; " + std::to_string(content.size()) +
                  " bytes are no whole number of them");
    }
    count += content.size() / record;
  }
  Dataset data;
  data.image_rows = data.image_cols = kSide;
  data.image_channels = kPlanes;
  data.x = at::empty({static_cast<std::int64_t>(count), kPixels}, at::kByte);
  data.y = at::empty({static_cast<std::int64_t>(count)}, at::kLong);
  std::uint8_t* x = data.x.mutable_data_ptr<std::uint8_t>();
  std::int64_t* y = data.y.mutable_data_ptr<std::int64_t>();
  for (std::size_t f = 0; f < files.size(); ++f) {
    for (std::size_t at = 0; at < contents[f].size(); at += record) {
      const std::int64_t label =
          static_cast<std::uint8_t>(contents[f][at + version.label_bytes - 1]);
      if (label >= version.classes) {
        throw DataError(files[f].string() + ": record " + std::to_string(at / record) + " (byte " +
                        std::to_string(at) + ") has label " + std::to_string(label) + "; " +
                        version.name + " has " + std::to_string(version.classes) + " classes");
      }
      *y++ = label;
      std::memcpy(x, contents[f].data() + at + version.label_bytes,
                  static_cast<std::size_t>(kPixels));
      x += kPixels;
    }
    contents[f].clear();
    contents[f].shrink_to_fit();
  }
  return data;
}

// The lines of a file of names, where it is there; else the labels' numbers.
std::vector<std::string> names_in(const std::filesystem::path& file, std::int64_t classes) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) return number_names(classes);
  ByteSource source(file);
  const std::string content = source.rest();
  std::vector<std::string> names;
  for (std::size_t at = 0; at < content.size();) {
    const std::size_t end = std::min(content.find('\n', at), content.size());
    std::string name = content.substr(at, end - at);
    while (!name.empty() && (name.back() == '\r' || name.back() == ' ')) name.pop_back();
    if (!name.empty()) names.push_back(std::move(name));
    at = end + 1;
  }
  if (std::ssize(names) != classes) {
    source.fail("has " + std::to_string(names.size()) + " names, " + std::to_string(classes) +
                " were expected");
  }
  return names;
}

}  // namespace

TrainTest load_cifar10(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i <= 5; ++i) {
    files.push_back(
        find_file(folder, std::string("data_batch_").append(std::to_string(i)) + ".bin"));
  }
  TrainTest data;
  data.train = read_files(files, kCifar10);
  data.test = read_files({find_file(folder, "test_batch.bin")}, kCifar10);
  data.train.label_names = names_in(folder / "batches.meta.txt", kCifar10.classes);
  data.test.label_names = data.train.label_names;
  return data;
}

TrainTest load_cifar100(const std::filesystem::path& folder) {
  TrainTest data;
  data.train = read_files({find_file(folder, "train.bin")}, kCifar100);
  data.test = read_files({find_file(folder, "test.bin")}, kCifar100);
  data.train.label_names = names_in(folder / "fine_label_names.txt", kCifar100.classes);
  data.test.label_names = data.train.label_names;
  return data;
}

}  // namespace perennial::continual
