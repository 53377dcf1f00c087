// SPDX-License-Identifier: Apache-2.0
// One pass over every test set.
#include "perennial/continual/evaluate.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>

#include "metrics/test_batch.h"

namespace perennial::continual {

Evaluation evaluate(Model& model, const Stream& stream, bool oracle,
                    const std::function<void(std::int64_t)>& progress,
                    std::optional<std::int64_t> learnt) {
  Evaluation evaluation;
  std::int64_t own = 0, all = 0;
  for (std::int64_t e = 0; e < stream.experiences(); ++e) {
    const std::int64_t owner = model.generation_of(e);
    std::optional<std::uint32_t> generation;
    const bool unlearned =
        model.experts() != nullptr && std::cmp_less(owner, model.experts()->generations()) &&
        model.experts()->state(static_cast<std::uint32_t>(owner)) == GenerationState::unlearned;
    // Nobody can name a generation that was unlearned, so an oracle is silent and no answer is its.
    if (oracle && !unlearned) {
      generation = static_cast<std::uint32_t>(std::min(owner, model.newest_generation()));
    }
    const bool counts = e < learnt.value_or(stream.experiences());
    const std::int64_t size = stream.test_size(e);
    const std::unique_ptr<Scorer> scorer = stream.task().scorer();
    for (std::int64_t begin = 0; begin < size; begin += kTestBatch) {
      const Batch batch = stream.test_batch(e, begin, std::min(begin + kTestBatch, size));
      const Prediction prediction = model.predict(batch.x, generation);
      scorer->add(prediction.answers, batch);
      if (counts) own += prediction.generations.eq(owner).sum().item<std::int64_t>();
      if (progress) progress(batch.y.size(0));
    }
    if (counts && !unlearned) all += size;
    evaluation.scores.push_back(scorer->score());
    if (std::vector<double> errors = scorer->errors(); !errors.empty()) {
      evaluation.errors.push_back(std::move(errors));
    }
  }
  if (all > 0 && model.gate() != nullptr) {
    evaluation.gate_accuracy = static_cast<double>(own) / static_cast<double>(all);
  }
  return evaluation;
}

boost::json::object errors_json(const std::vector<std::string>& targets,
                                const std::vector<std::vector<double>>& errors) {
  boost::json::object all;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    boost::json::array values;
    for (const std::vector<double>& of_set : errors) {
      values.push_back(std::isfinite(of_set[t]) ? boost::json::value(of_set[t])
                                                : boost::json::value(nullptr));
    }
    all[targets[t]] = std::move(values);
  }
  return all;
}

}  // namespace perennial::continual
