// SPDX-License-Identifier: Apache-2.0
// Finding out what a data set is, and a test part for what has none.
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "data/random_lanes.h"
#include "data/readers.h"
#include "perennial/core/error.h"
#include "perennial/core/options.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& file) {
  std::error_code error;
  return fs::exists(file, error);
}

// The file of this name, plain or gzip; empty when neither is there.
fs::path either(const fs::path& folder, const std::string& name) {
  for (const char* ending : {"", ".gz"}) {
    if (is_there(folder / (name + ending))) return folder / (name + ending);
  }
  return {};
}

Dataset rows_of(const Dataset& data, const std::vector<std::int64_t>& rows) {
  Dataset part = data;
  const at::Tensor index = at::tensor(rows, at::kLong);
  part.x = data.x.index_select(0, index);
  part.y = data.y.index_select(0, index);
  return part;
}

// Sets `image_files` where the data are images of a file each.
TrainTest load_folder(const fs::path& folder, bool& image_files, const TableOptions& options,
                      const std::vector<std::string>& known_labels,
                      const std::vector<std::string>& known_columns) {
  const auto has = [&](const std::string& name) { return !either(folder, name).empty(); };
  if (has("train-images-idx3-ubyte") || has("train-labels-idx1-ubyte")) {
    return load_idx_dataset(folder.string());
  }
  if (has("data_batch_1.bin")) return load_cifar10(folder);
  if (has("train.bin")) return load_cifar100(folder);
  if (has("x_train.npy") || has("x.npy")) return load_npy_dataset(folder, options.task);
  for (const std::string format : {".csv", ".jsonl"}) {
    const fs::path train = either(folder, "train" + format);
    if (train.empty()) continue;
    const fs::path test = either(folder, "test" + format);
    return load_table_dataset(train, test.empty() ? std::nullopt : std::optional(test), options,
                              known_labels, known_columns);
  }
  image_files = is_image_folder(folder);
  if (image_files) return load_image_folder(folder, options, known_labels);
  throw DataError(folder.string() +
                  ": no data set that is known; IDX (train-images-idx3-ubyte, ...), CIFAR "
                  "(data_batch_1.bin, ... or train.bin), NPY (x_train.npy, ... or x.npy), a table "
                  "(train.csv, train.jsonl) or a folder of images for each class was expected");
}

// Refuses options that these data leave nothing to do for.
void refuse_idle(const TrainTest& data, bool image_files, const TableOptions& options) {
  const TableOptions defaults;
  const auto refuse = [&](bool asked, const char* option, const char* needs) {
    if (!asked) return;
    throw InvalidOptions(std::string(option) + " needs " + needs + "; " + data.name + " is none");
  };
  if (!data.train.table) {
    const char* table = "a table (CSV, JSONL)";
    refuse(options.label_column != defaults.label_column, "label_column", table);
    refuse(options.target_column != defaults.target_column, "target_column", table);
    refuse(options.header != defaults.header, "header", table);
    refuse(options.separator != defaults.separator, "separator", table);
    refuse(options.encoding != defaults.encoding, "encoding", table);
    refuse(!image_files && options.bad_rows != defaults.bad_rows, "bad_rows",
           "a table (CSV, JSONL) or image files");
    refuse(options.missing_values != defaults.missing_values, "missing_values", table);
  }
  refuse(data.test.x.defined() && options.test_share != defaults.test_share, "test_share",
         "a data set without a test part");
}

// A name that is a folder of $PERENNIAL_DATA; empty when it is none.
fs::path named_folder(const std::string& name) {
  const char* root = std::getenv("PERENNIAL_DATA");
  if (root == nullptr || *root == '\0' || name.find('/') != std::string::npos) return {};
  std::error_code error;
  const fs::path folder = fs::path(root) / name;
  return fs::is_directory(folder, error) ? folder : fs::path();
}

// Moves a share of each class's examples, one at least where it has two, out of the training part:
// what is kept for `purpose`.
Dataset hold_out(TrainTest& data, double share, std::int64_t seed, LaneUse use,
                 const char* purpose) {
  // Without classes all examples are as those of one.
  const bool classes = data.train.targets.empty();
  std::vector<std::vector<std::int64_t>> of_class(
      classes ? static_cast<std::size_t>(data.train.classes()) : 1);
  const at::Tensor labels = data.train.y.contiguous();
  const std::int64_t* y = classes ? labels.const_data_ptr<std::int64_t>() : nullptr;
  for (std::int64_t i = 0; i < data.train.size(); ++i) {
    of_class[classes ? static_cast<std::size_t>(y[i]) : 0].push_back(i);
  }
  std::vector<std::int64_t> left, held;
  for (std::size_t c = 0; c < of_class.size(); ++c) {
    const std::vector<std::int64_t>& examples = of_class[c];
    const std::int64_t n = std::ssize(examples);
    std::vector<std::uint32_t> order(examples.size());
    kernels::shuffled_indices(static_cast<std::uint64_t>(seed),
                              random_lane(use, static_cast<std::int64_t>(c)), order);
    const auto wanted = static_cast<std::int64_t>(std::floor(share * static_cast<double>(n) + 0.5));
    const std::int64_t taken = n < 2 ? 0 : std::clamp<std::int64_t>(wanted, 1, n - 1);
    for (std::int64_t i = 0; i < n; ++i) {
      (i < taken ? held : left).push_back(examples[order[static_cast<std::size_t>(i)]]);
    }
  }
  if (held.empty()) {
    throw DataError(data.name +
                    (classes ? ": no class has two examples" : ": there are no two examples") +
                    ", so that none can be kept for " + purpose);
  }
  std::sort(left.begin(), left.end());
  std::sort(held.begin(), held.end());
  Dataset part = rows_of(data.train, held);
  data.train = rows_of(data.train, left);
  return part;
}

}  // namespace

std::string data_location(const std::string& dataset) {
  std::error_code error;
  if (dataset == kFashionMnist || !fs::exists(dataset, error)) return dataset;
  const fs::path canonical = fs::canonical(dataset, error);
  const std::string location = error ? dataset : canonical.string();
  options_detail::require_utf8("dataset", location);  // it goes into the store
  return location;
}

std::vector<std::string> number_names(std::int64_t classes) {
  std::vector<std::string> names;
  for (std::int64_t label = 0; label < classes; ++label) names.push_back(std::to_string(label));
  return names;
}

void split_test(TrainTest& data, double share, std::int64_t seed) {
  const std::int64_t whole = data.train.size();
  data.test = hold_out(data, share, seed, LaneUse::test_split, "testing");
  data.notes.push_back(data.name + " has no test part: " + std::to_string(data.test.size()) +
                       " of " + std::to_string(whole) +
                       " examples are kept for testing (test_share, stream_seed)");
}

void split_validation(TrainTest& data, double share, std::int64_t seed) {
  const std::int64_t whole = data.train.size();
  data.test = hold_out(data, share, seed, LaneUse::validation_split, "validation");
  data.notes.push_back(data.name + ": " + std::to_string(data.test.size()) + " of " +
                       std::to_string(whole) +
                       " training examples are held out and tested on in place of the test part "
                       "(validation_share, stream_seed)");
}

TrainTest load_dataset(const std::string& dataset, const TableOptions& options, std::int64_t seed,
                       const std::vector<std::string>& known_labels,
                       const std::vector<std::string>& known_columns) {
  std::error_code error;
  fs::path place = dataset;
  TrainTest data;
  bool image_files = false;
  if (dataset == kFashionMnist) {
    data = load_idx_dataset(dataset);
  } else {
    if (!fs::exists(place, error)) place = named_folder(dataset);
    if (place.empty()) {
      throw DataError("data set '" + dataset +
                      "' is neither fashion-mnist, nor a folder or a file, nor a folder of "
                      "$PERENNIAL_DATA");
    }
    data = fs::is_directory(place, error)
               ? load_folder(place, image_files, options, known_labels, known_columns)
               : load_table_dataset(place, std::nullopt, options, known_labels, known_columns);
  }
  if (data.name.empty()) data.name = fs::weakly_canonical(place).filename().string();
  if (options.task == TaskKind::regression && data.train.targets.empty()) {
    throw InvalidOptions(
        "task regression needs numbers to learn: a table (CSV, JSONL) with "
        "target_column, or NPY with a y of <f4 or <f8; " +
        data.name + " has labels");
  }
  refuse_idle(data, image_files, options);
  // Labels that are the classes' names go on where the known ones end; others must be the same.
  if (!known_labels.empty() && !data.train.table) {
    std::vector<std::string> names = data.train.label_names;
    if (names.size() < known_labels.size()) {
      names.insert(names.end(), known_labels.begin() + std::ssize(names), known_labels.end());
    }
    data.train.label_names = data.test.label_names = names;
  }
  if (!data.test.x.defined()) split_test(data, options.test_share, seed);
  data.validate();
  return data;
}

}  // namespace perennial::continual
