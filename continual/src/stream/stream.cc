// SPDX-License-Identifier: Apache-2.0
// Gathering a stream's batches.
#include "perennial/continual/stream.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "data/preprocessing.h"
#include "data/random_lanes.h"
#include "perennial/core/error.h"
#include "stream/stream_orders.h"
#include "stream/stream_transforms.h"

namespace perennial::continual {
namespace {

// Rows a thread takes at least: below this, starting threads costs more than it gains.
constexpr std::int64_t kGrainRows = 64;

}  // namespace

void Stream::Part::append(Segment segment) {
  segment.begin = size;
  size += std::ssize(*segment.examples);
  segments.push_back(std::move(segment));
}

const Dataset& Stream::train_rows() const { return data_->train; }

Dataset Stream::test_rows(std::int64_t experience) const {
  std::vector<std::int64_t> rows;
  for (const Segment& segment : part(test_, experience).segments) {
    rows.insert(rows.end(), segment.examples->begin(), segment.examples->end());
  }
  const at::Tensor index = at::tensor(rows, at::kLong);
  Dataset test = data_->test;
  test.x = test.x.index_select(0, index);
  test.y = test.y.index_select(0, index);
  return test;
}

std::int64_t Stream::features() const { return data_->train.features(); }
const std::vector<std::string>& Stream::notes() const { return data_->notes; }
std::int64_t Stream::image_rows() const { return data_->train.image_rows; }
std::int64_t Stream::image_cols() const { return data_->train.image_cols; }
std::int64_t Stream::image_channels() const { return data_->train.image_channels; }

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
  const bool own_classes = options_.resolved_scenario() != Scenario::domain_incremental;
  std::vector<std::int64_t> labels(
      static_cast<std::size_t>(own_classes ? classes() / options_.experiences : classes()));
  std::iota(labels.begin(), labels.end(), own_classes ? experience * std::ssize(labels) : 0);
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
  for (const OrderCache::Entry& entry : cache.entries) {
    if (entry.experience == experience && entry.epoch == epoch && entry.seed == seed) {
      return entry.order;
    }
  }
  OrderCache::Entry& entry = cache.entries[cache.oldest];
  cache.oldest = (cache.oldest + 1) % cache.entries.size();
  entry.order = std::make_shared<const std::vector<std::uint32_t>>(
      shuffled(seed, random_lane(LaneUse::epoch_order, experience, epoch), train_size(experience)));
  entry.experience = experience;
  entry.epoch = epoch;
  entry.seed = seed;
  return entry.order;
}

std::int64_t Stream::blurred(std::int64_t experience) const {
  if (options_.blur == 0 || experience < 0 || experience + 1 >= experiences()) return 0;
  const std::int64_t smaller = std::min(train_size(experience), train_size(experience + 1));
  return static_cast<std::int64_t>(options_.blur * static_cast<double>(smaller) / 2);
}

std::pair<std::int64_t, std::int64_t> Stream::unblurred(std::int64_t experience, std::int64_t epoch,
                                                        std::int64_t place) const {
  const auto changes = [&](std::int64_t boundary, std::int64_t i) {
    const std::int64_t k = blurred(boundary);
    if (i >= k) return false;
    const auto odds = (std::uint64_t{1} << 31) * static_cast<std::uint64_t>(k - i) /
                      static_cast<std::uint64_t>(k);
    kernels::RandomStream random(static_cast<std::uint64_t>(options_.stream_seed),
                                 random_lane(LaneUse::blur, boundary, epoch),
                                 static_cast<std::uint64_t>(i));
    return random.next() < odds;
  };
  const std::int64_t from_end = train_size(experience) - 1 - place;
  if (changes(experience, from_end)) return {experience + 1, from_end};
  if (experience > 0 && changes(experience - 1, place)) {
    return {experience - 1, train_size(experience - 1) - 1 - place};
  }
  return {experience, place};
}

Stream::Pick Stream::pick(const Part& part, std::int64_t position) {
  const auto after =
      std::upper_bound(part.segments.begin(), part.segments.end(), position,
                       [](std::int64_t at, const Segment& s) { return at < s.begin; });
  const Segment& segment = *std::prev(after);
  return {(*segment.examples)[static_cast<std::size_t>(position - segment.begin)], segment.source};
}

std::int64_t Stream::joint_level(const Pick& pick, std::int64_t epoch) const {
  kernels::RandomStream random(static_cast<std::uint64_t>(options_.stream_seed),
                               random_lane(LaneUse::joint_angle, pick.source, epoch),
                               static_cast<std::uint64_t>(pick.example));
  return static_cast<std::int64_t>(random.below(kAngleLevels));
}

Batch Stream::train_batch(std::int64_t experience, std::int64_t epoch, std::int64_t step,
                          std::int64_t batch_size, std::int64_t seed) const {
  const std::int64_t steps = steps_per_epoch(experience, batch_size);
  if (step < 0 || step >= steps || epoch < 0) {
    throw Error("step " + std::to_string(step) + " of epoch " + std::to_string(epoch) +
                ", which has " + std::to_string(steps) + " steps");
  }
  const std::int64_t begin = step * batch_size;
  const std::int64_t end = std::min(begin + batch_size, train_size(experience));
  std::vector<Pick> picks;
  Indices order;
  std::int64_t ordered = -1;  // the experience whose order that is
  for (std::int64_t i = begin; i < end; ++i) {
    const auto [e, place] = unblurred(experience, epoch, i);
    if (e != ordered) order = epoch_order(e, epoch, seed);
    ordered = e;
    picks.push_back(pick(part(train_, e), (*order)[static_cast<std::size_t>(place)]));
    if (!options_.gradual) continue;
    Pick& last = picks.back();
    last.level = joint_ ? joint_level(last, epoch) : place * kAngleLevels / train_size(e);
  }
  return gather(data_->train, picks);
}

Batch Stream::test_batch(std::int64_t experience, std::int64_t begin, std::int64_t end) const {
  const Part& test = part(test_, experience);
  if (begin < 0 || end < begin || end > test.size) {
    throw Error("test examples " + std::to_string(begin) + " to " + std::to_string(end) + " of " +
                std::to_string(test.size));
  }
  std::vector<Pick> picks;
  for (std::int64_t i = begin; i < end; ++i) picks.push_back(pick(test, i));
  return gather(data_->test, picks);
}

torch::Tensor Stream::targets_of(const Dataset& data, const std::vector<Pick>& picks) const {
  const std::int64_t count = std::ssize(picks), C = std::ssize(data.targets);
  if (C == 0) {
    torch::Tensor y = at::empty({count}, at::kLong);
    std::int64_t* out = y.mutable_data_ptr<std::int64_t>();
    const std::int64_t* labels = data.y.const_data_ptr<std::int64_t>();
    for (const Pick& p : picks) {
      *out++ = labels[p.example] + label_shift_[static_cast<std::size_t>(p.source)];
    }
    return y;
  }
  const Normalizer normalize(targets_);
  torch::Tensor y = at::empty({count, C}, at::kFloat);
  float* out = y.mutable_data_ptr<float>();
  const double* values = data.y.const_data_ptr<double>();
  for (const Pick& p : picks) {
    normalize.row(values + p.example * C, nullptr, C, out);
    out += C;
  }
  return y;
}

Batch Stream::gather(const Dataset& data, const std::vector<Pick>& picks) const {
  const std::int64_t D = data.features(), count = std::ssize(picks);
  const Normalizer normalize(preprocessing_);
  Batch batch{at::empty({count, D}, at::kFloat), targets_of(data, picks),
              at::empty({count}, at::kLong)};
  float* x = batch.x.mutable_data_ptr<float>();
  std::int64_t* experience = batch.experience.mutable_data_ptr<std::int64_t>();
  // A batch of a pass has few levels: their maps are made here and go with it.
  std::map<std::pair<std::int64_t, std::int64_t>, RotationMap> between;
  for (const Pick& p : picks) {
    if (p.level >= 0 && !between.contains({p.source, p.level})) {
      between.emplace(std::pair(p.source, p.level), transforms_->rotation_at(p.source, p.level));
    }
  }
  const auto fill = [&](const auto* pixels) {
    at::parallel_for(0, count, kGrainRows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Pick& p = picks[static_cast<std::size_t>(i)];
        const auto* row = pixels + p.example * D;
        if (transforms_->rotates()) {
          const RotationMap& map =
              p.level < 0 ? transforms_->rotation(p.source) : between.at({p.source, p.level});
          map.row(row, data.image_channels, normalize, x + i * D);
        } else {
          normalize.row(row, transforms_->permutation(p.source), D, x + i * D);
        }
        experience[i] = p.source;
      }
    });
  };
  with_features(data.x, fill);
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
  all.joint_ = true;
  all.orders_ = std::make_shared<OrderCache>();
  return all;
}

Stream Stream::cumulative() const {
  Stream all = *this;
  Part so_far;
  for (Part& part : all.train_) {
    for (const Segment& segment : part.segments) so_far.append(segment);
    if (so_far.size > std::numeric_limits<std::int32_t>::max()) {
      throw InvalidOptions("the cumulative stream reaches " + std::to_string(so_far.size) +
                           " examples, more than 2^31 - 1; use a limit or fewer experiences");
    }
    part = so_far;
  }
  all.orders_ = std::make_shared<OrderCache>();
  return all;
}

}  // namespace perennial::continual
