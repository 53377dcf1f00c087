// SPDX-License-Identifier: Apache-2.0
// Building a stream's experiences, and gathering their batches.
#include "perennial/continual/stream.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>

#include "perennial/core/error.h"
#include "perennial/kernels/philox.h"
#include "preprocessing.h"
#include "random_lanes.h"

namespace perennial::continual {
namespace {

// Rows a thread takes at least: below this, starting threads costs more than it gains.
constexpr std::int64_t kGrainRows = 64;

std::vector<std::uint32_t> shuffled(std::int64_t seed, std::uint64_t lane, std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  kernels::shuffled_indices(static_cast<std::uint64_t>(seed), lane, order);
  return order;
}

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
  }
  return hasher.finish();
}

std::vector<std::uint32_t> identity(std::int64_t n) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0U);
  return order;
}

void make_contiguous(Dataset& data) {
  data.x = data.x.contiguous();
  data.y = data.y.contiguous();
}

}  // namespace

EnumNames<StreamKind> enum_names(StreamKind) {
  return {{StreamKind::permuted, "permuted"},
          {StreamKind::split, "split"},
          {StreamKind::single, "single"}};
}

std::string_view describe(StreamKind kind) {
  switch (kind) {
    case StreamKind::permuted:
      return "all examples in every experience: first as they are, then with the pixels in another "
             "order "
             "each time";
    case StreamKind::split:
      return "the classes in turn, as many in every experience; labels keep their numbers";
    case StreamKind::single:
      return "the whole data set as one experience";
  }
  return "";
}

void StreamOptions::validate() const {
  validate_ranges(*this);
  if (dataset.empty()) throw InvalidOptions("dataset is empty; a name or a folder was expected");
}

// The order of the last epoch asked for.
struct Stream::OrderCache {
  std::mutex mutex;
  std::int64_t seed = 0, experience = -1, epoch = 0;
  Indices order;
};

void Stream::Part::append(Segment segment) {
  segment.begin = size;
  size += std::ssize(*segment.examples);
  segments.push_back(std::move(segment));
}

Stream::Stream(const StreamOptions& options)
    : Stream(options, (options.validate(), load_idx_dataset(options.dataset))) {}

Stream::Stream(const StreamOptions& options, TrainTest data)
    : options_(options), orders_(std::make_shared<OrderCache>()) {
  options_.validate();
  if (options_.stream == StreamKind::single) options_.experiences = 1;
  data.validate();
  for (const Dataset* part : {&data.train, &data.test}) {
    if (part->size() > std::numeric_limits<std::int32_t>::max()) {
      throw DataError(data.name + ": more than 2^31 - 1 examples");
    }
  }
  make_contiguous(data.train);
  make_contiguous(data.test);
  data_ = std::make_shared<const TrainTest>(std::move(data));
  data_digest_ = digest_of(*data_);
  build_parts();

  // Of the first experience's own examples only: later data is not known yet when it is learnt.
  const std::vector<std::uint32_t>& first = *train_[0].segments[0].examples;
  if (std::ssize(first) == data_->train.size()) {
    preprocessing_ = Preprocessing::fit(data_->train.x);
  } else {
    const std::vector<std::int64_t> rows(first.begin(), first.end());
    preprocessing_ = Preprocessing::fit(
        data_->train.x.index_select(0, torch::tensor(rows, torch::dtype(torch::kLong))));
  }
}

void Stream::build_parts() {
  const Dataset& train = data_->train;
  const Dataset& test = data_->test;
  const std::int64_t T = options_.experiences;
  const bool split = options_.stream == StreamKind::split;
  if (split && (T > classes() || classes() % T != 0)) {
    throw InvalidOptions("experiences is " + std::to_string(T) + ", but the " +
                         std::to_string(classes()) + " classes of " + data_->name +
                         " do not divide into as many equal parts");
  }
  const std::int64_t classes_each = split ? classes() / T : classes();
  // Without a limit, experiences of all classes share one list of indices.
  Indices all_train, all_test;
  const auto select = [&](const Dataset& data, std::int64_t e, std::int64_t limit, LaneUse use,
                          Indices& all) -> Indices {
    if (!split && limit == 0 && all) return all;
    auto examples = examples_of_classes(data, split ? e * classes_each : 0, classes_each);
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
    if (options_.stream == StreamKind::permuted) {
      permutations_.push_back(e == 0 ? identity(features())
                                     : shuffled(options_.stream_seed,
                                                random_lane(LaneUse::permutation, e), features()));
    }
  }
}

std::int64_t Stream::image_rows() const { return data_->train.image_rows; }
std::int64_t Stream::image_cols() const { return data_->train.image_cols; }
std::int64_t Stream::features() const { return data_->train.features(); }
std::int64_t Stream::classes() const { return data_->train.classes(); }
const std::vector<std::string>& Stream::label_names() const { return data_->train.label_names; }

const Stream::Part& Stream::part(const std::vector<Part>& parts, std::int64_t experience) const {
  if (experience < 0 || experience >= std::ssize(parts)) {
    throw Error("experience " + std::to_string(experience) + " of a stream of " +
                std::to_string(parts.size()));
  }
  return parts[static_cast<std::size_t>(experience)];
}

std::int64_t Stream::train_size(std::int64_t experience) const {
  return part(train_, experience).size;
}

std::int64_t Stream::test_size(std::int64_t experience) const {
  return part(test_, experience).size;
}

std::vector<std::int64_t> Stream::classes_of(std::int64_t experience) const {
  part(test_, experience);
  const bool split = options_.stream == StreamKind::split;
  std::vector<std::int64_t> labels(
      static_cast<std::size_t>(split ? classes() / options_.experiences : classes()));
  std::iota(labels.begin(), labels.end(), split ? experience * std::ssize(labels) : 0);
  return labels;
}

std::int64_t Stream::steps_per_epoch(std::int64_t experience, std::int64_t batch_size) const {
  if (batch_size < 1) throw Error("a batch of " + std::to_string(batch_size) + " examples");
  const std::int64_t size = train_size(experience);
  return size / batch_size + (size % batch_size != 0 ? 1 : 0);
}

Stream::Indices Stream::epoch_order(std::int64_t experience, std::int64_t epoch,
                                    std::int64_t seed) const {
  const std::scoped_lock lock(orders_->mutex);
  OrderCache& cache = *orders_;
  if (cache.experience != experience || cache.epoch != epoch || cache.seed != seed) {
    cache.order = std::make_shared<const std::vector<std::uint32_t>>(shuffled(
        seed, random_lane(LaneUse::epoch_order, experience, epoch), train_size(experience)));
    cache.experience = experience;
    cache.epoch = epoch;
    cache.seed = seed;
  }
  return cache.order;
}

Batch Stream::train_batch(std::int64_t experience, std::int64_t epoch, std::int64_t step,
                          std::int64_t batch_size, std::int64_t seed) const {
  const std::int64_t steps = steps_per_epoch(experience, batch_size);
  if (step < 0 || step >= steps || epoch < 0) {
    throw Error("step " + std::to_string(step) + " of epoch " + std::to_string(epoch) +
                ", which has " + std::to_string(steps) + " steps");
  }
  const Indices order = epoch_order(experience, epoch, seed);
  const std::int64_t begin = step * batch_size;
  const std::int64_t count = std::min(batch_size, std::ssize(*order) - begin);
  return gather(data_->train, part(train_, experience), order->data() + begin, 0, count);
}

Batch Stream::test_batch(std::int64_t experience, std::int64_t begin, std::int64_t end) const {
  const Part& test = part(test_, experience);
  if (begin < 0 || end < begin || end > test.size) {
    throw Error("test examples " + std::to_string(begin) + " to " + std::to_string(end) + " of " +
                std::to_string(test.size));
  }
  return gather(data_->test, test, nullptr, begin, end - begin);
}

Batch Stream::gather(const Dataset& data, const Part& part, const std::uint32_t* positions,
                     std::int64_t first, std::int64_t count) const {
  const std::int64_t D = data.features();
  const Normalizer normalize(preprocessing_);
  Batch batch{at::empty({count, D}, at::kFloat), at::empty({count}, at::kLong)};
  float* x = batch.x.mutable_data_ptr<float>();
  std::int64_t* y = batch.y.mutable_data_ptr<std::int64_t>();
  const std::int64_t* labels = data.y.const_data_ptr<std::int64_t>();
  const auto fill = [&](const auto* pixels) {
    at::parallel_for(0, count, kGrainRows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t position = positions != nullptr ? positions[i] : first + i;
        const auto after =
            std::upper_bound(part.segments.begin(), part.segments.end(), position,
                             [](std::int64_t at, const Segment& s) { return at < s.begin; });
        const Segment& segment = *std::prev(after);
        const std::int64_t example =
            (*segment.examples)[static_cast<std::size_t>(position - segment.begin)];
        const std::uint32_t* order =
            permutations_.empty() ? nullptr
                                  : permutations_[static_cast<std::size_t>(segment.source)].data();
        normalize.row(pixels + example * D, order, D, x + i * D);
        y[i] = labels[example];
      }
    });
  };
  if (data.x.scalar_type() == at::kByte) {
    fill(data.x.const_data_ptr<std::uint8_t>());
  } else {
    fill(data.x.const_data_ptr<float>());
  }
  return batch;
}

Stream Stream::joint() const {
  Stream all = *this;
  Part whole;
  for (const Part& part : train_) {
    for (const Segment& segment : part.segments) whole.append(segment);
  }
  if (whole.size > std::numeric_limits<std::int32_t>::max()) {
    throw InvalidOptions("the joint stream has " + std::to_string(whole.size) +
                         " examples, more than 2^31 - 1; use a limit or fewer experiences");
  }
  all.train_.assign(1, std::move(whole));
  all.orders_ = std::make_shared<OrderCache>();
  return all;
}

}  // namespace perennial::continual
