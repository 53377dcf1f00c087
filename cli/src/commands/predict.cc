// SPDX-License-Identifier: Apache-2.0
// perennial predict: use what was learnt on rows of a file.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <utility>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/dataset.h"
#include "perennial/continual/trainer.h"
#include "run_support.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::int64_t kRows = 1000;  // rows a call predicts: bounds the memory

std::string csv_text(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

int run_predict(const std::vector<std::string>& args) {
  std::string folder, input, file, snapshot;
  std::int64_t generation = -1;
  RunFlags run;
  CommonOptions common;
  Flags flags("predict", kPredictCommand.summary,
              "perennial predict --store perennial-demo --input images.npy");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_text("at", snapshot, "NAME|N", "the state to look at; the newest without it")
      .require(
          "input", input, "FILE",
          "rows to answer: IDX, NPY, CSV or JSONL of numbers (also gzip); an image, or a folder of "
          "images")
      .add_text("output", file, "FILE", "where the CSV goes; standard output without it")
      .add("generation", generation, "the generation that answers; -1 = the gate chooses",
           Range{-1, 4294967295.});
  common.add_to(flags);
  run.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  run.apply(common);

  const auto store = open_view(folder, snapshot);
  const continual::LearntModel learnt = load_learnt(*store, run, common);
  std::optional<std::uint32_t> told;
  if (generation >= 0) {
    if (!routes_alone(learnt.config.model) && !learnt.config.needs_experience()) {
      throw InvalidOptions("--generation needs a store whose generations route for themselves");
    }
    const std::int64_t generations = learnt.model->newest_generation() + 1;
    if (std::cmp_greater_equal(generation, generations)) {
      throw InvalidOptions("--generation is " + std::to_string(generation) +
                           "; the store has 0 to " + std::to_string(generations - 1));
    }
    told = static_cast<std::uint32_t>(generation);
  }
  const torch::Tensor rows =
      continual::read_rows(input, learnt.preprocessing.columns, learnt.config.stream.table);
  if (rows.size(1) != learnt.preprocessing.features) {
    throw DataError(input + " has rows of " + std::to_string(rows.size(1)) +
                    " numbers; the store learnt rows of " +
                    std::to_string(learnt.preprocessing.features));
  }

  const auto predict = [&](std::int64_t begin) {
    return learnt.model->predict(
        learnt.preprocessing.apply(rows.slice(0, begin, std::min(begin + kRows, rows.size(0)))),
        told);
  };
  // What the model refuses is known before anything is written.
  continual::Prediction answer = predict(0);
  const Output output(common.json, common.quiet);
  std::ofstream to_file;
  if (!file.empty()) {
    to_file.open(file, std::ios::trunc);
    if (!to_file) throw Error(file + " cannot be written");
  }
  std::ostream& out = file.empty() ? std::cout : to_file;
  const bool csv = !file.empty() || !common.json;  // with --json the object is the result
  const std::vector<std::string> columns = learnt.task->prediction_columns();
  if (csv) {
    out << "row,";
    for (const std::string& column : columns) out << csv_text(column) << ',';
    out << "generation\n";
  }
  boost::json::array predictions;
  for (std::int64_t begin = 0; begin < rows.size(0); begin += kRows) {
    if (begin > 0) answer = predict(begin);
    const auto lines = learnt.task->predictions(answer.answers);
    for (std::int64_t i = 0; i < std::ssize(lines); ++i) {
      const std::vector<continual::PredictionCell>& cells = lines[static_cast<std::size_t>(i)];
      const auto from = answer.generations[i].item<std::int64_t>();
      if (csv) {
        out << begin + i << ',';
        for (const continual::PredictionCell& cell : cells) out << csv_text(cell.text) << ',';
        out << (from < 0 ? "" : std::to_string(from)) << '\n';
      }
      if (common.json) {
        boost::json::object line{{"row", begin + i}};
        for (std::size_t c = 0; c < cells.size(); ++c) line[columns[c]] = cells[c].value;
        line["generation"] = from < 0 ? boost::json::value(nullptr) : boost::json::value(from);
        predictions.push_back(std::move(line));
      }
    }
  }
  if (!out.flush()) throw Error((file.empty() ? "standard output" : file) + " cannot be written");
  output.finish({{"rows", rows.size(0)},
                 {"device", learnt.placement.device.str()},
                 {"predictions", std::move(predictions)}});
  return kExitOk;
}

}  // namespace

const Command kPredictCommand{"predict", CommandGroup::learn_and_use,
                              "label rows of a file, or give their numbers, with what was learnt",
                              run_predict};

}  // namespace perennial::cli
