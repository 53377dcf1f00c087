// SPDX-License-Identifier: Apache-2.0
// Data with labels or targets in memory, and the readers that fill it.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "perennial/continual/table_options.h"

namespace perennial::continual {

// N examples of D features. Thread-compatible; copies share the tensors.
struct Dataset {
  torch::Tensor x;                       // (N, D), uint8, float32 or float64
  torch::Tensor y;                       // (N), int64 in [0, classes); or (N, targets), float64
  std::vector<std::string> label_names;  // one a class; none of a regression
  std::int64_t image_rows = 0;           // 0 when examples are not images
  std::int64_t image_cols = 0;
  std::int64_t image_channels = 1;  // planes of an image, one after the other
  // Of a table: features are quantities of their own, missing ones are NaN, and columns may have
  // names (D of them, or none).
  bool table = false;
  std::vector<std::string> columns = {};
  std::vector<std::string> targets = {};  // of a regression, a name for each

  std::int64_t size() const { return x.size(0); }
  std::int64_t features() const { return x.size(1); }
  std::int64_t classes() const { return static_cast<std::int64_t>(label_names.size()); }
};

struct TrainTest {
  Dataset train;
  Dataset test;
  std::string name;                     // "fashion-mnist", or the folder's or file's name
  std::vector<std::string> notes = {};  // what a user should know, a line each

  // Throws DataError naming what is wrong: shapes or types that differ between examples and labels
  // or between train and test, no examples, a label outside [0, classes), a target that is not
  // finite, names that are not UTF-8.
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

// Any data set, by what is there:
//  - the name fashion-mnist, or another name that is a folder of $PERENNIAL_DATA;
//  - a folder with IDX files (load_idx_dataset);
//  - a folder with CIFAR-10 (data_batch_1.bin .. data_batch_5.bin, test_batch.bin) or CIFAR-100
//    (train.bin, test.bin; the fine labels) in their binary versions;
//  - a folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy, or x.npy and y.npy: (N, D)
//    or (N, H, W) examples as in read_rows, and N labels, whole numbers from 0, or for a regression
//    (N) or (N, targets) numbers (<f4, <f8);
//  - a folder with train.csv and test.csv, or train.jsonl and test.jsonl; or one such file, of any
//    name: tables, see TableOptions;
//  - a folder with a sub-folder of images (PNG, JPEG, PGM, PPM) for each class, or with `train` and
//    `test` that have those. All images have the size of the first one; grey ones count as red,
//    green, blue where one has colours; 16 bits become 8, transparent parts are laid on black. With
//    bad_rows skip, what is no such image is left out, counted and named.
// A regression has tables and NPY. Single files may be gzip. What has no test part gets one of
// test_share of each class's examples, or of all (one at least where there are two), drawn from
// `seed`. A table's labels, and the folders of
// image files, are text: those of `known_labels` keep their numbers, new ones follow in ascending
// order, as numbers if all of them are whole ones. With `known_columns`, the features that a model
// learnt by name, a table that names its columns may have them in any order and have others beside
// them. Cost: a table's text is held in memory while it is read. Throws DataError naming file, line
// or byte, what was expected and what was found; InvalidOptions for an option that would do nothing
// for these data.
TrainTest load_dataset(const std::string& dataset, const TableOptions& options = {},
                       std::int64_t seed = 1, const std::vector<std::string>& known_labels = {},
                       const std::vector<std::string>& known_columns = {});

// Where a data set is, to be found again from another folder: the canonical path of a file or
// folder that is there; else, and for fashion-mnist, `dataset` itself.
std::string data_location(const std::string& dataset);

// Moves a share of each class's examples, or of all without classes, one at least where there are
// two, from the training to the test part, drawn from `seed`, and says so in the notes. Throws
// DataError when there are no two.
void split_test(TrainTest& data, double share, std::int64_t seed);

// The same for validation: what is held out takes the place of the test part, which is dropped.
void split_validation(TrainTest& data, double share, std::int64_t seed);

// Rows of features for prediction: IDX images, NPY (2-d or 3-d, |u1, <f4, <f8, C order), a table
// (CSV, JSONL) of numbers, each plain or gzip; an image file, or a folder of such, by their names.
// The format is known by the content; a name that ends in .npy, -ubyte or .jsonl promises that
// format. With `columns`, the features that a model learnt by name, a table that names its columns
// may have them in any order and have others beside them. Bad rows are an error, whatever the
// options say: every row must get its answer. Returns (N, D), N and D at least 1: uint8, float32,
// or float64 of tables and <f8; all values finite, or NaN where missing_values allows that they are
// missing. Throws DataError
// naming the file and the place.
torch::Tensor read_rows(const std::filesystem::path& file,
                        const std::vector<std::string>& columns = {},
                        const TableOptions& options = {});

// What turns raw features into a model's input: (x - mean) / deviation, with one mean and one
// deviation over all training features of the first experience seen, or with those of each feature;
// stored with the model. A missing value (NaN) becomes 0: it counts as the mean. What is further
// than 1e15 deviations from the mean counts as that far.
struct Preprocessing {
  std::int64_t features = 0;
  double mean = 0;
  double deviation = 1;
  // (D) each where every feature has its own; else empty, and the two above hold for all.
  std::vector<double> means = {};
  std::vector<double> deviations = {};
  // Names of the features where the training table had them; else empty.
  std::vector<std::string> columns = {};

  // x: (N, D) uint8, float32 or float64. Sums in double (exact for uint8); the population's
  // deviation.
  // Values that are all equal get deviation 1; missing ones do not count.
  static Preprocessing fit(const torch::Tensor& x);
  // As fit, for each feature.
  static Preprocessing fit_features(const torch::Tensor& x);
  // (B, D) of such a type to (B, D) float32: each value is computed in double and rounded once,
  // so that equal features give equal bits whatever file or type they came from. Throws DataError
  // when D differs from `features`.
  torch::Tensor apply(const torch::Tensor& x) const;
};

}  // namespace perennial::continual
