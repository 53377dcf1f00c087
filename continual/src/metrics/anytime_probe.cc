// SPDX-License-Identifier: Apache-2.0
// Draws the fixed part of each test set, and scores a model on it.
#include "metrics/anytime_probe.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <optional>

#include "data/random_lanes.h"
#include "metrics/test_batch.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

namespace {

// Of its own: which examples are looked at depends on no seed of the run.
constexpr std::uint64_t kSubsetSeed = 0x616E7974696D65;

}  // namespace

AnytimeProbe::AnytimeProbe(const Stream& stream, const AnytimeOptions& options)
    : stream_(stream), options_(options) {}

AnytimeCurve AnytimeProbe::empty_curve(const Stream& training) const {
  return {options_, stream_.task().kind(), stream_.experiences(), training.experiences(), {}};
}

bool AnytimeProbe::wanted(const AnytimePoint& point) const {
  if (!options_.on()) return false;
  if (point.end) return true;
  if (options_.anytime_first > 0 && point.minibatch <= options_.anytime_first) return true;
  return AnytimeCurve{.options = options_}.regular(point);
}

const Batch& AnytimeProbe::examples(std::int64_t test_set) {
  const auto index = static_cast<std::size_t>(test_set);
  if (index >= examples_.size()) examples_.resize(index + 1);
  Batch& batch = examples_[index];
  if (batch.y.defined()) return batch;
  const std::int64_t size = stream_.test_size(test_set);
  const std::int64_t wanted = options_.anytime_examples;
  if (wanted == 0 || wanted >= size) return batch = stream_.test_batch(test_set, 0, size);
  std::vector<std::uint32_t> order(static_cast<std::size_t>(size));
  kernels::shuffled_indices(kSubsetSeed, random_lane(LaneUse::anytime_subset, test_set), order);
  order.resize(static_cast<std::size_t>(wanted));
  std::sort(order.begin(), order.end());
  std::vector<torch::Tensor> x, y, experience;
  for (const std::uint32_t i : order) {
    Batch one = stream_.test_batch(test_set, i, static_cast<std::int64_t>(i) + 1);
    x.push_back(std::move(one.x));
    y.push_back(std::move(one.y));
    experience.push_back(std::move(one.experience));
  }
  return batch = {at::cat(x), at::cat(y), at::cat(experience)};
}

std::vector<double> AnytimeProbe::measure(Model& model, bool oracle, std::int64_t seen) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<double> scores;
  for (std::int64_t e = 0; e < seen; ++e) {
    std::optional<std::uint32_t> generation;
    if (oracle) {
      generation =
          static_cast<std::uint32_t>(std::min(model.generation_of(e), model.newest_generation()));
    }
    const Batch& batch = examples(e);
    const std::int64_t size = batch.y.size(0);
    const std::unique_ptr<Scorer> scorer = stream_.task().scorer();
    for (std::int64_t begin = 0; begin < size; begin += kTestBatch) {
      const std::int64_t rows = std::min(kTestBatch, size - begin);
      const Batch part{batch.x.narrow(0, begin, rows), batch.y.narrow(0, begin, rows),
                       batch.experience.narrow(0, begin, rows)};
      scorer->add(model.predict(part.x, generation).answers, part);
    }
    scores.push_back(scorer->score());
  }
  last_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return scores;
}

}  // namespace perennial::continual
