// SPDX-License-Identifier: Apache-2.0
// The readers of single files and folders behind dataset.h, one a format.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/dataset.h"
#include "perennial/continual/table_options.h"

namespace perennial::continual {

// The starts that tell the formats apart.
inline constexpr std::string_view kIdxMagic{"\0\0", 2};
inline constexpr std::string_view kNpyMagic{"\x93NUMPY", 6};

// The data set that is found by its name before a folder is.
inline constexpr std::string_view kFashionMnist = "fashion-mnist";

// Dimensions as messages print them: "60000 x 28 x 28".
std::string format_dims(const std::vector<std::int64_t>& dims);
// Product of `dims` times `element_bytes`; false when it does not fit 63 bits or a dim is negative.
bool checked_bytes(const std::vector<std::int64_t>& dims, std::int64_t element_bytes,
                   std::uint64_t& bytes);

// "0", "1", ...: the names of labels that are numbers.
std::vector<std::string> number_names(std::int64_t classes);

// An NPY file of 2 or 3 dimensions (|u1, <f4, <f8; C order) as (N, D) of its type. Sets
// rows and columns where it has 3.
at::Tensor read_npy(const std::filesystem::path& file, std::int64_t* image_rows = nullptr,
                    std::int64_t* image_cols = nullptr);
// An NPY file of 1 dimension (or N x 1) of whole numbers from 0 (integers of 1, 2, 4 or 8 bytes,
// little-endian): (N) int64.
at::Tensor read_npy_labels(const std::filesystem::path& file);

// An NPY file of 1 or 2 dimensions of finite numbers (<f4, <f8): (N, targets) float64.
at::Tensor read_npy_targets(const std::filesystem::path& file);

// x_train.npy, y_train.npy and those of the test part, or x.npy and y.npy and no test part.
TrainTest load_npy_dataset(const std::filesystem::path& folder, TaskKind task);
// CIFAR's binary versions. Images are three planes of 32 x 32.
TrainTest load_cifar10(const std::filesystem::path& folder);
TrainTest load_cifar100(const std::filesystem::path& folder);
// One table, or one and its test part. Both have the same features by name.
TrainTest load_table_dataset(const std::filesystem::path& train,
                             const std::optional<std::filesystem::path>& test,
                             const TableOptions& options,
                             const std::vector<std::string>& known_labels,
                             const std::vector<std::string>& known_columns);
// Whether a sub-folder, of the folder or of its `train`, holds an image.
bool is_image_folder(const std::filesystem::path& folder);
// A sub-folder of images for each class, in the folder or in `train` and `test`. All images have
// the size of the first one; grey ones become red, green, blue where one has colours. What is none
// is a bad row.
TrainTest load_image_folder(const std::filesystem::path& folder, const TableOptions& options,
                            const std::vector<std::string>& known_labels);
// An image, or all images of a folder by name, as (N, D) uint8.
at::Tensor read_images(const std::filesystem::path& place);
// A table's rows without a label, as (N, D) float64.
at::Tensor read_table_rows(const std::filesystem::path& file,
                           const std::vector<std::string>& columns, const TableOptions& options);

}  // namespace perennial::continual
