// SPDX-License-Identifier: Apache-2.0
// Building a stream's experiences, labels and transforms.
#include <ATen/ops/cat.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "data/class_order.h"
#include "data/random_lanes.h"
#include "perennial/core/error.h"
#include "perennial/kernels/philox.h"
#include "stream/stream_orders.h"
#include "stream/stream_transforms.h"

namespace perennial::continual {
namespace {

// `limit` of the candidates by chance, in their order; all of them with limit 0.
std::vector<std::uint32_t> subset(std::vector<std::uint32_t> candidates, std::int64_t limit,
                                  std::int64_t seed, std::uint64_t lane) {
  if (limit == 0 || limit == std::ssize(candidates)) return candidates;
  std::vector<std::uint32_t> chosen = shuffled(seed, lane, std::ssize(candidates));
  chosen.resize(static_cast<std::size_t>(limit));
  std::sort(chosen.begin(), chosen.end());
  for (std::uint32_t& index : chosen) index = candidates[index];
  return chosen;
}

// Indices of the examples whose label lies in [first, first + count).
std::vector<std::uint32_t> examples_of_classes(const Dataset& data, std::int64_t first,
                                               std::int64_t count) {
  const std::int64_t* y = data.y.const_data_ptr<std::int64_t>();
  std::vector<std::uint32_t> examples;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    if (y[i] >= first && y[i] < first + count) examples.push_back(static_cast<std::uint32_t>(i));
  }
  return examples;
}

void check_examples(std::int64_t available, std::int64_t limit, const char* flag, const char* what,
                    std::int64_t experience) {
  const std::string where = "experience " + std::to_string(experience);
  if (available == 0) throw DataError(where + " has no " + what + " examples");
  if (limit > available) {
    throw InvalidOptions(std::string(flag) + " is " + std::to_string(limit) + ", but " + where +
                         " has " + std::to_string(available) + " " + what + " examples");
  }
}

storage::Digest digest_of(const TrainTest& data) {
  storage::Hasher hasher;
  const auto add = [&](const torch::Tensor& tensor) {
    hasher.update(static_cast<std::uint64_t>(tensor.size(0)));
    hasher.update(
        std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
  };
  for (const Dataset* part : {&data.train, &data.test}) {
    hasher.update(static_cast<std::uint64_t>(part->features()));
    hasher.update(torch::toString(part->x.scalar_type()));
    add(part->x);
    add(part->y);
    for (const std::string& name : part->label_names) hasher.update(name);
    for (const std::string& name : part->targets) hasher.update(name);
  }
  return hasher.finish();
}

void make_contiguous(Dataset& data) {
  data.x = data.x.contiguous();
  data.y = data.y.contiguous();
}

std::vector<std::uint32_t> identity(std::int64_t n) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

// Throws unless what was learnt before can go on with these data.
void check_before(const TrainTest& data, const LearntBefore& before) {
  const Preprocessing& known = before.preprocessing;
  if (data.train.features() != known.features) {
    throw DataError(data.name + ": examples of " + std::to_string(data.train.features()) +
                    " features; the model takes " + std::to_string(known.features));
  }
  for (std::size_t j = 0; j < std::min(known.columns.size(), data.train.columns.size()); ++j) {
    if (known.columns[j] == data.train.columns[j]) continue;
    throw DataError(data.name + ": feature " + std::to_string(j + 1) + " is '" +
                    data.train.columns[j] + "'; the model learnt '" + known.columns[j] + "' there");
  }
  for (const Dataset& test : before.tests) {
    if (test.x.dim() == 2 && test.x.size(1) == known.features && test.x.size(0) > 0 &&
        test.y.dim() == data.train.y.dim() && test.y.size(0) == test.x.size(0)) {
      continue;
    }
    throw DataError("a test set that was kept is not of (N, " + std::to_string(known.features) +
                    ") features");
  }
  if (data.train.targets != before.targets.columns) {
    const auto text = [](const std::vector<std::string>& names) {
      std::string all;
      for (const std::string& name : names) all += (all.empty() ? "'" : "', '") + name;
      return all.empty() ? "none" : all + "'";
    };
    throw DataError(data.name + ": its targets are " + text(data.train.targets) +
                    "; the model learnt " + text(before.targets.columns));
  }
  const std::vector<std::string>& labels = data.train.label_names;
  if (labels.size() < before.label_names.size() ||
      !std::equal(before.label_names.begin(), before.label_names.end(), labels.begin())) {
    throw DataError(data.name + ": its labels do not begin with those that were learnt before");
  }
}

}  // namespace

Stream::Transforms::Transforms(const StreamOptions& options, const Dataset& data,
                               const std::string& name)
    : options_(options), rows_(data.image_rows), cols_(data.image_cols) {
  const std::int64_t T = options.experiences;
  if (options.stream == StreamKind::permuted) {
    for (std::int64_t e = 0; e < T; ++e) {
      const std::int64_t alike = options.first_alike(e);
      permutations_.push_back(alike == 0 ? identity(data.features())
                                         : shuffled(options.stream_seed,
                                                    random_lane(LaneUse::permutation, alike),
                                                    data.features()));
    }
  }
  if (options.stream != StreamKind::rotated) return;
  if (rows_ < 1 || cols_ < 1 || rows_ * cols_ * data.image_channels != data.features()) {
    throw InvalidOptions("stream rotated needs images; the examples of " + name + " are none");
  }
  for (std::int64_t e = 0; e < T; ++e) rotations_.emplace_back(rows_, cols_, options.angle_of(e));
}

RotationMap Stream::Transforms::rotation_at(std::int64_t experience, std::int64_t level) const {
  const double step = options_.experiences > 1 || options_.angle_step != 0
                          ? options_.angle_of(1)
                          : 0.0;  // one experience has nowhere to go
  const double share = (static_cast<double>(level) + 0.5) / static_cast<double>(kAngleLevels) - 0.5;
  return {rows_, cols_, options_.angle_of(experience) + share * step};
}

Stream::Stream(const StreamOptions& options)
    : Stream(options, (options.validate(),
                       load_dataset(options.dataset, options.table, options.stream_seed))) {}

Stream::Stream(const StreamOptions& options, TrainTest data)
    : Stream(options, std::move(data), nullptr) {}

Stream::Stream(const StreamOptions& options, TrainTest data, const LearntBefore& before)
    : Stream(options, std::move(data), &before) {}

Stream::Stream(const StreamOptions& options, TrainTest data, const LearntBefore* before)
    : options_(options), orders_(std::make_shared<OrderCache>()) {
  options_.validate();
  if (options_.stream == StreamKind::single) options_.experiences = 1;
  data.validate();
  if ((options_.table.task == TaskKind::regression) == data.train.targets.empty()) {
    throw InvalidOptions("task " + std::string(enum_name(options_.table.task)) + " learns " +
                         (data.train.targets.empty() ? "numbers, and " : "labels, and ") +
                         data.name + " has none");
  }
  if (before != nullptr) check_before(data, *before);
  for (const Dataset* part : {&data.train, &data.test}) {
    if (part->size() > std::numeric_limits<std::int32_t>::max()) {
      throw DataError(data.name + ": more than 2^31 - 1 examples");
    }
  }
  make_contiguous(data.train);
  make_contiguous(data.test);
  data_digest_ = digest_of(data);
  if (options_.validation_share > 0) {
    split_validation(data, options_.validation_share, options_.stream_seed);
  }
  order_classes(data, options_);
  data_ = std::make_shared<const TrainTest>(std::move(data));
  build_parts();
  build_labels();
  transforms_ = std::make_shared<const Transforms>(options_, data_->train, data_->name);
  if (before != nullptr) {
    preprocessing_ = before->preprocessing;
    targets_ = before->targets;
    if (!before->tests.empty()) prepend(before->tests);
  } else {
    fit_preprocessing();
  }
  task_ = make_task(options_, label_names_, targets_);
}

Stream Stream::of_tests(const StreamOptions& options, LearntBefore before,
                        const storage::Digest& digest) {
  if (before.tests.empty()) throw Error("a stream of no test sets");
  TrainTest data{before.tests.back(), before.tests.back(), "what the store keeps"};
  data.train.label_names = data.test.label_names = before.label_names;
  data.train.targets = data.test.targets = before.targets.columns;
  before.tests.pop_back();
  StreamOptions whole = options;
  whole.limit = whole.test_limit = 0;
  whole.validation_share = 0;
  Stream stream(whole, std::move(data), before);
  for (Part& part : stream.train_) part = {};
  stream.data_digest_ = digest;
  return stream;
}

// Earlier test sets take the first places; the training examples are the last experience's.
void Stream::prepend(const std::vector<Dataset>& tests) {
  if (options_.stream != StreamKind::single) {
    throw InvalidOptions("further data are learnt as stream single, not " +
                         std::string(enum_name(options_.stream)));
  }
  TrainTest all = *data_;
  std::vector<at::Tensor> x, y;
  std::vector<Part> parts;
  const auto add = [&](const at::Tensor& rows, const at::Tensor& labels) {
    x.push_back(rows);
    y.push_back(labels);
  };
  std::int64_t begin = 0;
  for (const Dataset& test : tests) {
    auto range = identity(test.x.size(0));
    for (std::uint32_t& index : range) index += static_cast<std::uint32_t>(begin);
    parts.emplace_back().append(
        {std::make_shared<const std::vector<std::uint32_t>>(std::move(range)), std::ssize(parts)});
    begin += test.x.size(0);
    add(test.x, test.y);
  }
  add(all.test.x, all.test.y);
  std::vector<std::uint32_t> own = *test_[0].segments[0].examples;
  for (std::uint32_t& index : own) index += static_cast<std::uint32_t>(begin);
  earlier_ = std::ssize(tests);
  parts.emplace_back().append(
      {std::make_shared<const std::vector<std::uint32_t>>(std::move(own)), earlier_});
  all.test.x = at::cat(x);  // of the widest type
  all.test.y = at::cat(y);
  data_ = std::make_shared<const TrainTest>(std::move(all));
  test_ = std::move(parts);
  Part fresh = train_[0];
  fresh.segments[0].source = earlier_;
  train_.assign(static_cast<std::size_t>(earlier_), {});
  train_.push_back(std::move(fresh));
  options_.experiences = earlier_ + 1;
  label_shift_.assign(static_cast<std::size_t>(options_.experiences), 0);
}

void Stream::build_parts() {
  const Dataset& train = data_->train;
  const Dataset& test = data_->test;
  const std::int64_t T = options_.experiences, C = train.classes();
  const bool split = options_.stream == StreamKind::split;
  if (split && (T > C || C % T != 0)) {
    throw InvalidOptions("experiences is " + std::to_string(T) + ", but the " + std::to_string(C) +
                         " classes of " + data_->name + " do not divide into as many equal parts");
  }
  const std::int64_t classes_each = split ? C / T : C;
  // Without a limit, experiences of all classes share one list of indices.
  Indices all_train, all_test;
  const auto select = [&](const Dataset& data, std::int64_t e, std::int64_t limit, LaneUse use,
                          Indices& all) -> Indices {
    if (!split && limit == 0 && all) return all;
    auto examples =
        split ? examples_of_classes(data, e * classes_each, classes_each) : identity(data.size());
    const bool is_train = use == LaneUse::train_subset;
    check_examples(std::ssize(examples), limit, is_train ? "limit" : "test_limit",
                   is_train ? "training" : "test", e);
    auto chosen = std::make_shared<const std::vector<std::uint32_t>>(
        subset(std::move(examples), limit, options_.stream_seed, random_lane(use, e)));
    if (!split && limit == 0) all = chosen;
    return chosen;
  };
  for (std::int64_t e = 0; e < T; ++e) {
    train_.emplace_back().append(
        {select(train, e, options_.limit, LaneUse::train_subset, all_train), e});
    test_.emplace_back().append(
        {select(test, e, options_.test_limit, LaneUse::test_subset, all_test), e});
  }
}

void Stream::build_labels() {
  const std::vector<std::string>& names = data_->train.label_names;
  const std::int64_t T = options_.experiences, C = std::ssize(names);
  const bool split = options_.stream == StreamKind::split;
  const bool same_labels = options_.resolved_scenario() == Scenario::domain_incremental;
  label_names_ = names;
  label_shift_.assign(static_cast<std::size_t>(T), 0);
  if (T == 1 || split != same_labels) return;  // as the data has them
  if (split) {
    const std::int64_t each = C / T;
    label_names_.assign(names.begin(), names.begin() + each);
    for (std::int64_t c = each; c < C; ++c) {
      label_names_[static_cast<std::size_t>(c % each)] +=
          " or " + names[static_cast<std::size_t>(c)];
    }
    for (std::int64_t e = 0; e < T; ++e) label_shift_[static_cast<std::size_t>(e)] = -e * each;
    return;
  }
  label_names_.clear();
  for (std::int64_t e = 0; e < T; ++e) {
    label_shift_[static_cast<std::size_t>(e)] = e * C;
    for (const std::string& name : names) {
      label_names_.push_back(name + " (" + std::to_string(e + 1) + ")");
    }
  }
}

// Of the first experience's own examples only: later data is not known yet when it is learnt.
void Stream::fit_preprocessing() {
  const Dataset& train = data_->train;
  const std::vector<std::uint32_t>& first = *train_[0].segments[0].examples;
  torch::Tensor x = train.x, y = train.y;
  if (std::ssize(first) != train.size()) {
    const torch::Tensor rows = torch::tensor(std::vector<std::int64_t>(first.begin(), first.end()),
                                             torch::dtype(torch::kLong));
    x = x.index_select(0, rows);
    y = y.index_select(0, rows);
  }
  if (!train.targets.empty()) {
    targets_ = Preprocessing::fit_features(y);
    targets_.columns = train.targets;
  }
  const bool own = options_.normalize == Normalization::feature ||
                   (options_.normalize == Normalization::automatic && train.table);
  preprocessing_ = own ? Preprocessing::fit_features(x) : Preprocessing::fit(x);
  if (options_.normalize == Normalization::none) {
    preprocessing_.mean = 0;
    preprocessing_.deviation = 1;
  }
  preprocessing_.columns = train.columns;
}

}  // namespace perennial::continual
