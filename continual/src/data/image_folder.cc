// SPDX-License-Identifier: Apache-2.0
// Folders of images, a sub-folder for each class.
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <system_error>

#include "data/image.h"
#include "data/label_table.h"
#include "data/readers.h"
#include "data/table.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

namespace fs = std::filesystem;

// What a folder holds, by name; hidden things do not count.
std::vector<fs::path> entries_of(const fs::path& folder, bool folders) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const bool hidden = at->path().filename().string().starts_with('.');
    if (!hidden && at->is_directory() == folders) entries.push_back(at->path());
  }
  if (error) throw DataError(folder.string() + ": " + error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

// Images of one size, as they are found.
struct Images {
  std::vector<Image> images;
  std::vector<std::int64_t> labels;
  std::int64_t channels = 1;  // 3 as soon as one image has colours

  // Takes the image of a file; an unusable one is for the log.
  void take(const fs::path& file, const fs::path& folder, std::int64_t label, const Images& others,
            BadRowLog& bad) {
    try {
      Image image = read_image(file);
      const Images& with = images.empty() ? others : *this;
      if (!with.images.empty()) {
        const Image& first = with.images.front();
        if (image.rows != first.rows || image.cols != first.cols) {
          throw DataError("is of " + std::to_string(image.rows) + " x " +
                          std::to_string(image.cols) + " pixels, the first image of " +
                          std::to_string(first.rows) + " x " + std::to_string(first.cols));
        }
      }
      channels = std::max(channels, image.channels);
      images.push_back(std::move(image));
      labels.push_back(label);
    } catch (const DataError& error) {
      bad.add(fs::relative(file, folder).string() + ' ' + error.what());
    }
  }

  // (N, D) uint8, planes one after the other.
  at::Tensor planes(std::int64_t planes) const {
    const std::int64_t pixels = images.front().rows * images.front().cols;
    at::Tensor x = at::empty({std::ssize(images), pixels * planes}, at::kByte);
    std::uint8_t* to = x.mutable_data_ptr<std::uint8_t>();
    for (const Image& image : images) {
      for (std::int64_t plane = 0; plane < planes; ++plane) {
        const std::int64_t from = std::min(plane, image.channels - 1);  // grey is all three
        for (std::int64_t i = 0; i < pixels; ++i) {
          *to++ = image.values[static_cast<std::size_t>(i * image.channels + from)];
        }
      }
    }
    return x;
  }

  Dataset dataset(std::int64_t of_channels, const std::vector<std::string>& names) const {
    Dataset data;
    data.x = planes(of_channels);
    data.y = at::tensor(labels, at::kLong);
    data.label_names = names;
    data.image_rows = images.front().rows;
    data.image_cols = images.front().cols;
    data.image_channels = of_channels;
    return data;
  }
};

Images read_images(const fs::path& folder, const LabelTable& labels, const Images& others,
                   BadRows rule, std::vector<std::string>& notes) {
  BadRowLog bad(folder, rule, "images");
  Images part;
  for (const fs::path& of_class : entries_of(folder, true)) {
    const std::string name = of_class.filename().string();
    const std::int64_t label = labels.find(name);
    if (label < 0) {
      throw DataError(of_class.string() + ": the training part has no class " + name);
    }
    for (const fs::path& deeper : entries_of(of_class, true)) {
      bad.add(fs::relative(deeper, folder).string() + " is a folder, an image was expected");
    }
    for (const fs::path& file : entries_of(of_class, false)) {
      part.take(file, folder, label, others, bad);
    }
  }
  std::string note = bad.summary(part.images.size());
  if (part.images.empty()) {
    throw DataError(note.empty() ? folder.string() + ": no image in its folders"
                                 : note + "; none is left");
  }
  if (!note.empty()) notes.push_back(std::move(note));
  return part;
}

// DIR/train/CLASS/..., DIR/test/CLASS/..., rather than classes called so.
bool has_parts(const fs::path& folder) {
  return fs::is_directory(folder / "train") && !entries_of(folder / "train", true).empty();
}

}  // namespace

bool is_image_folder(const fs::path& folder) {
  const std::vector<fs::path> folders =
      entries_of(has_parts(folder) ? folder / "train" : folder, true);
  return std::any_of(folders.begin(), folders.end(), [](const fs::path& of_class) {
    const std::vector<fs::path> files = entries_of(of_class, false);
    return std::any_of(files.begin(), files.end(), is_image);
  });
}

TrainTest load_image_folder(const fs::path& folder, const TableOptions& options,
                            const std::vector<std::string>& known_labels) {
  const bool parts = has_parts(folder);
  const fs::path train = parts ? folder / "train" : folder;
  std::vector<std::string> names;
  for (const fs::path& of_class : entries_of(train, true)) {
    names.push_back(of_class.filename().string());
  }
  LabelTable labels(known_labels);
  labels.add_sorted(names);
  TrainTest data;
  const Images learnt = read_images(train, labels, {}, options.bad_rows, data.notes);
  Images tested;
  if (parts && fs::is_directory(folder / "test")) {
    tested = read_images(folder / "test", labels, learnt, options.bad_rows, data.notes);
  }
  const std::int64_t channels = std::max(learnt.channels, tested.channels);
  data.train = learnt.dataset(channels, labels.names());
  if (!tested.images.empty()) data.test = tested.dataset(channels, labels.names());
  return data;
}

at::Tensor read_images(const fs::path& place) {
  std::vector<fs::path> files{place};
  if (fs::is_directory(place)) {
    if (const auto folders = entries_of(place, true); !folders.empty()) {
      throw DataError(folders.front().string() + " is a folder, an image was expected");
    }
    files = entries_of(place, false);
  }
  if (files.empty()) throw DataError(place.string() + ": no image in it");
  Images images;
  BadRowLog bad(place, BadRows::refuse, "images");
  for (const fs::path& file : files) images.take(file, file.parent_path(), 0, {}, bad);
  return images.planes(images.channels);
}

}  // namespace perennial::continual
