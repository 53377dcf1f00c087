// SPDX-License-Identifier: Apache-2.0
// Folders of IDX files, and files of rows.
#include "perennial/continual/dataset.h"

#include <ATen/ops/empty.h>

#include <array>
#include <cstdlib>
#include <string_view>

#include "data/byte_source.h"
#include "data/image.h"
#include "data/preprocessing.h"
#include "data/readers.h"
#include "perennial/core/error.h"
#include "perennial/core/text.h"

namespace perennial::continual {
namespace {

constexpr const char* kPackageFolder = "/usr/share/datasets/fashion-mnist";
constexpr std::array kFashionMnistLabels = {"T-shirt/top", "Trouser",   "Pullover", "Dress",
                                            "Coat",        "Sandal",    "Shirt",    "Sneaker",
                                            "Bag",         "Ankle boot"};

// The folder of a data set's name. Throws DataError that says what to install or set.
std::filesystem::path find_folder(const std::string& name_or_folder) {
  const char* data_root = std::getenv("PERENNIAL_DATA");
  const bool named = name_or_folder == kFashionMnist;
  std::filesystem::path folder = name_or_folder;
  if (named) {
    folder = data_root != nullptr && *data_root != '\0'
                 ? std::filesystem::path(data_root) / kFashionMnist
                 : std::filesystem::path(kPackageFolder);
  }
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return folder;
  if (named) {
    throw DataError("data set fashion-mnist: no folder " + folder.string() +
                    "; install the package dataset-fashion-mnist, or set PERENNIAL_DATA to the "
                    "folder that holds fashion-mnist/");
  }
  throw DataError("data set '" + name_or_folder +
                  "' is neither fashion-mnist nor a folder with IDX files");
}

// `stem` is "train-images-idx3": the file under that name, plain or gzip.
std::filesystem::path find_idx(const std::filesystem::path& folder, const std::string& stem) {
  for (const char* ending : {"-ubyte", "-ubyte.gz"}) {
    std::filesystem::path file = folder / (stem + ending);
    std::error_code error;
    if (std::filesystem::exists(file, error)) return file;
  }
  throw DataError(folder.string() + ": neither " + stem + "-ubyte nor " + stem +
                  "-ubyte.gz is there");
}

std::string dims_of(const torch::Tensor& tensor) {
  return format_dims({tensor.sizes().begin(), tensor.sizes().end()});
}

Dataset read_part(const std::filesystem::path& folder, const std::string& part) {
  const std::filesystem::path images_file = find_idx(folder, part + "-images-idx3");
  const std::filesystem::path labels_file = find_idx(folder, part + "-labels-idx1");
  const torch::Tensor images = read_idx(images_file);
  if (images.dim() == 1) {
    throw DataError(images_file.string() + ": holds labels (1 dimension of " + dims_of(images) +
                    "), images (3 dimensions) were expected");
  }
  if (images.dim() != 3) {
    throw DataError(images_file.string() + ": holds " + std::to_string(images.dim()) +
                    " dimensions (" + dims_of(images) + "), images have 3");
  }
  const torch::Tensor labels = read_idx(labels_file);
  if (labels.dim() != 1) {
    throw DataError(labels_file.string() + ": holds " + (labels.dim() == 3 ? "images" : "arrays") +
                    " (" + dims_of(labels) + "), labels (1 dimension) were expected");
  }
  if (images.size(0) != labels.size(0)) {
    throw DataError(labels_file.string() + ": " + std::to_string(labels.size(0)) +
                    " labels for the " + std::to_string(images.size(0)) + " images of " +
                    images_file.string());
  }
  if (images.numel() == 0) {
    throw DataError(images_file.string() + ": holds no pixels (" + dims_of(images) + ")");
  }
  Dataset data;
  data.image_rows = images.size(1);
  data.image_cols = images.size(2);
  data.x = images.reshape({images.size(0), images.size(1) * images.size(2)});
  data.y = labels.to(at::kLong);
  return data;
}

std::vector<std::string> label_names(const std::string& name, std::int64_t classes) {
  if (name == kFashionMnist && classes == std::ssize(kFashionMnistLabels)) {
    return {kFashionMnistLabels.begin(), kFashionMnistLabels.end()};
  }
  return number_names(classes);
}

void validate_part(const Dataset& data, const std::string& what) {
  if (!data.x.defined() || !data.y.defined() || data.x.dim() != 2 || data.x.numel() == 0 ||
      !is_feature_type(data.x.scalar_type())) {
    throw DataError(what +
                    ": examples must be (N, D) uint8, float32 or float64, N and D 1 or more");
  }
  if (!data.targets.empty()) {
    if (data.y.dim() != 2 || data.y.scalar_type() != at::kDouble ||
        data.y.size(0) != data.x.size(0) || data.y.size(1) != std::ssize(data.targets)) {
      throw DataError(what + ": targets must be (" + std::to_string(data.x.size(0)) + ", " +
                      std::to_string(data.targets.size()) + ") float64, a row an example");
    }
    if (!data.y.isfinite().all().item<bool>()) {
      throw DataError(what + ": a target is not a finite number");
    }
    return;
  }
  if (data.y.dim() != 1 || data.y.scalar_type() != at::kLong || data.y.size(0) != data.x.size(0)) {
    throw DataError(what + ": labels must be (" + std::to_string(data.x.size(0)) +
                    ") int64, one an example");
  }
  const torch::Tensor labels = data.y.contiguous();
  const std::int64_t* y = labels.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < data.size(); ++i) {
    if (y[i] < 0 || y[i] >= data.classes()) {
      throw DataError(what + ": example " + std::to_string(i) + " has label " +
                      std::to_string(y[i]) + ", there are " + std::to_string(data.classes()) +
                      " classes");
    }
  }
}

}  // namespace

void TrainTest::validate() const {
  if (train.label_names != test.label_names) {
    throw DataError(name + ": train and test have different label names");
  }
  if (train.targets != test.targets) {
    throw DataError(name + ": train and test have different targets");
  }
  for (const std::vector<std::string>* names :
       {&train.label_names, &train.columns, &train.targets}) {
    for (const std::string& text : *names) {
      if (invalid_utf8(text) == text.npos) continue;
      throw DataError(name + ": the name '" + valid_utf8(text) +
                      "' of a label or column is not UTF-8 and could not be stored");
    }
  }
  validate_part(train, name + ", training set");
  validate_part(test, name + ", test set");
  for (const Dataset* part : {&train, &test}) {
    if (part->columns.empty() || std::ssize(part->columns) == part->features()) continue;
    throw DataError(name + ": " + std::to_string(part->columns.size()) + " names for " +
                    std::to_string(part->features()) + " features");
  }
  if (train.features() != test.features()) {
    throw DataError(name + ": " + std::to_string(train.features()) + " features in train, " +
                    std::to_string(test.features()) + " in test");
  }
}

TrainTest load_idx_dataset(const std::string& name_or_folder) {
  const std::filesystem::path folder = find_folder(name_or_folder);
  TrainTest data;
  data.name = std::filesystem::weakly_canonical(folder).filename().string();
  data.train = read_part(folder, "train");
  data.test = read_part(folder, "t10k");
  data.train.label_names = label_names(data.name, data.train.y.max().item<std::int64_t>() + 1);
  data.test.label_names = data.train.label_names;
  data.validate();
  return data;
}

torch::Tensor read_rows(const std::filesystem::path& file, const std::vector<std::string>& columns,
                        const TableOptions& options) {
  if (std::filesystem::is_directory(file) || is_image(file)) return read_images(file);
  const std::string start = peek_bytes(file, kNpyMagic.size());
  if (start.empty()) throw DataError(file.string() + ": is empty");
  std::string name = file.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  if (start == kNpyMagic || name.ends_with(".npy")) return read_npy(file);
  if (!start.starts_with(kIdxMagic) && !name.ends_with("-ubyte")) {
    return read_table_rows(file, columns, options);
  }

  const torch::Tensor values = read_idx(file);
  if (values.dim() == 1) {
    throw DataError(file.string() + ": holds labels (1 dimension of " + dims_of(values) +
                    "), images were expected");
  }
  if (values.numel() == 0) {
    throw DataError(file.string() + ": holds no values (" + dims_of(values) + ")");
  }
  return values.reshape({values.size(0), -1});
}

}  // namespace perennial::continual
