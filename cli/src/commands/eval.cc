// SPDX-License-Identifier: Apache-2.0
// perennial eval: accuracy of a learnt store on the test sets of its stream.
#include <numeric>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/trainer.h"
#include "progress.h"
#include "run_support.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

// The store's own test sets where it keeps them, else those of the data set.
continual::Stream test_sets_of(const continual::LearntModel& learnt, const std::string& dataset) {
  if (!learnt.tests.empty() && dataset.empty()) {
    return continual::Stream::of_tests(learnt.config.stream, learnt.known(), learnt.data_digest);
  }
  if (learnt.tests.size() > 1) {
    throw InvalidOptions("--dataset: the store learnt " + std::to_string(learnt.tests.size()) +
                         " data sets and keeps their test sets itself");
  }
  continual::StreamOptions options = learnt.config.stream;
  if (!dataset.empty()) options.dataset = dataset;
  const continual::Stream stream(options);
  continual::require_same_data(learnt, stream);
  return stream;
}

int run_eval(const std::vector<std::string>& args) {
  std::string folder, dataset, snapshot;
  bool oracle = false;
  RunFlags run;
  CommonOptions common;
  Flags flags("eval", kEvalCommand.summary, "perennial eval --store perennial-demo");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_text("at", snapshot, "NAME|N", "the state to look at; the newest without it")
      .add_text("dataset", dataset, "DIR", "where the data set is now; as stored without it")
      .add_switch("oracle", oracle, "tell the model which generation learnt each test set");
  common.add_to(flags);
  run.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  run.apply(common);

  const auto store = open_view(folder, snapshot);
  const continual::LearntModel learnt = load_learnt(*store, run, common);
  if (oracle && !routes_alone(learnt.config.model) && !learnt.config.needs_experience()) {
    throw InvalidOptions("--oracle needs a store whose generations route for themselves");
  }
  // A run with the oracle gate was evaluated with it too.
  oracle = oracle || learnt.config.gate() == GateKind::oracle;
  const continual::Stream stream = test_sets_of(learnt, dataset);
  std::int64_t total = 0, done = 0;
  for (std::int64_t e = 0; e < stream.experiences(); ++e) total += stream.test_size(e);
  ProgressDisplay display(common.quiet);
  const continual::Evaluation evaluation = continual::evaluate(
      *learnt.model, stream, oracle,
      [&](std::int64_t examples) {
        done += examples;
        display.update({"evaluating", done, total, "examples", ""});
      },
      learnt.experiences);
  display.clear();

  const Output output(common.json, common.quiet);
  const continual::ScoreNames& names = continual::score_names(learnt.task->kind());
  Table table({{"test set"}, {"examples"}, {names.title}});
  for (std::int64_t e = 0; e < stream.experiences(); ++e) {
    table.add_row({std::to_string(e + 1), format_count(stream.test_size(e)),
                   format_metric(evaluation.scores[static_cast<std::size_t>(e)])});
  }
  table.print(output.text());
  const double mean = std::accumulate(evaluation.scores.begin(), evaluation.scores.end(), 0.0) /
                      static_cast<double>(evaluation.scores.size());
  output.text() << "mean " << format_metric(mean);
  if (evaluation.gate_accuracy && !oracle) {
    output.text() << "   gate accuracy " << format_metric(evaluation.gate_accuracy);
  }
  output.text() << '\n';
  print_errors(output.text(), learnt.targets.columns, evaluation.errors);
  boost::json::object json{
      {names.metric, mean},
      {names.values, boost::json::array(evaluation.scores.begin(), evaluation.scores.end())},
      {"oracle", oracle},
      {"device", learnt.placement.device.str()}};
  if (!evaluation.errors.empty()) {
    json["rmse"] = continual::errors_json(learnt.targets.columns, evaluation.errors);
  }
  if (evaluation.gate_accuracy && !oracle) json["gate_accuracy"] = *evaluation.gate_accuracy;
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kEvalCommand{"eval", CommandGroup::learn_and_use,
                           "score what was learnt on the test sets of its stream", run_eval};

}  // namespace perennial::cli
