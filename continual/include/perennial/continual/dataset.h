// SPDX-License-Identifier: Apache-2.0
// Labelled data in memory, and the readers that fill it.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace perennial::continual {

// N examples of D features. Thread-compatible; copies share the tensors.
struct Dataset {
  torch::Tensor x;                       // (N, D), uint8 or float32
  torch::Tensor y;                       // (N), int64 in [0, classes)
  std::vector<std::string> label_names;  // one a class
  std::int64_t image_rows = 0;           // 0 when examples are not images
  std::int64_t image_cols = 0;

  std::int64_t size() const { return x.size(0); }
  std::int64_t features() const { return x.size(1); }
  std::int64_t classes() const { return static_cast<std::int64_t>(label_names.size()); }
};

struct TrainTest {
  Dataset train;
  Dataset test;
  std::string name;  // "fashion-mnist", or the folder's name

  // Throws DataError naming what is wrong: shapes or types that differ between examples and labels
  // or between train and test, no examples, a label outside [0, classes).
  void validate() const;
};

// Reads one IDX file of unsigned bytes (magic 0x00 0x00 0x08, then 1 to 4 dimensions), plain or
// gzip by content. The dimensions are checked against the file's length before anything of their
// size is allocated. Returns uint8 in the file's shape. Throws DataError naming the file, what was
// expected and what was found.
torch::Tensor read_idx(const std::filesystem::path& file);

// Reads {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] from a folder; the plain file is taken
// where both are there. `name_or_folder` is "fashion-mnist" or a folder. The former is the folder
// $PERENNIAL_DATA/fashion-mnist where that variable is set, else the distribution package's. The
// number of classes is the largest training label + 1. The label names of a folder called
// fashion-mnist are known; others are the labels' numbers. Throws DataError.
TrainTest load_idx_dataset(const std::string& name_or_folder);

// Rows of features for prediction: IDX images, NPY (2-d or 3-d, |u1, <f4, <f8, C order), or CSV of
// numbers (a first line without any number is a header), each plain or gzip. The format is known by
// the content; a name that ends in .npy or -ubyte promises that format. Returns (N, D), uint8 or
// float32, N and D at least 1, all values finite. Throws DataError naming the file and the place.
torch::Tensor read_rows(const std::filesystem::path& file);

// What turns raw features into a model's input: (x - mean) / deviation with one mean and one
// deviation over all training pixels of the first experience seen; stored with the model.
struct Preprocessing {
  std::int64_t features = 0;
  double mean = 0;
  double deviation = 1;

  // x: (N, D) uint8 or float32. Sums in double (exact for uint8); the population's deviation.
  // Values that are all equal get deviation 1.
  static Preprocessing fit(const torch::Tensor& x);
  // (B, D) uint8 or float32 to (B, D) float32: each value is computed in double and rounded once,
  // so that equal features give equal bits whatever file or type they came from. Throws DataError
  // when D differs from `features`.
  torch::Tensor apply(const torch::Tensor& x) const;
};

}  // namespace perennial::continual
