// SPDX-License-Identifier: Apache-2.0
// Reads the files of a run folder.
#include "perennial/continual/run_folder.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <string_view>

#include "perennial/continual/run_config.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

std::optional<double> number(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}

std::int64_t integer(const json::object& object, std::string_view key) {
  return static_cast<std::int64_t>(number(object, key).value_or(0));
}

std::vector<double> numbers(const json::object& object, std::string_view key) {
  std::vector<double> all;
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_array()) return all;
  for (const json::value& element : value->get_array()) {
    if (!element.is_number()) throw DataError(std::string(key).append(" is not all numbers"));
    all.push_back(element.to_number<double>());
  }
  return all;
}

// The same with gaps, NaN, where there is null.
std::vector<double> numbers_with_gaps(json::object object, std::string_view key) {
  json::value* value = object.if_contains(key);
  if (value != nullptr && value->is_array()) {
    for (json::value& element : value->get_array()) {
      if (element.is_null()) element = std::numeric_limits<double>::quiet_NaN();
    }
  }
  return numbers(object, key);
}

json::object object_in(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_object() ? value->get_object() : json::object{};
}

std::string text_in(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

// A configuration without the field is of a classification.
TaskKind task_in(const RunFolder& run) {
  const std::string name = run.setting("stream", "task");
  return name.empty() ? TaskKind::classification : parse_enum<TaskKind>("task", name);
}

AnytimePoint point_from(const json::object& event, TaskKind task) {
  AnytimePoint point{integer(event, "experience"), integer(event, "minibatch"),
                     integer(event, "steps"), false, numbers(event, score_names(task).values)};
  const json::value* end = event.if_contains("end");
  point.end = end != nullptr && end->is_bool() && end->get_bool();
  if (point.scores.empty() || point.experience < 1 || point.minibatch < 0) {
    throw DataError("a point of the anytime curve is malformed");
  }
  return point;
}

// Rows of the matrix as events give them.
struct Reader {
  RunFolder run;
  std::vector<std::pair<std::int64_t, std::vector<double>>> rows;
  // An older summary may lie beside the events of a run that went on.
  bool summary_is_older = false;

  ExperienceFigures& figures(std::int64_t experience) {
    for (ExperienceFigures& known : run.experiences) {
      if (known.experience == experience) return known;
    }
    run.experiences.push_back({.experience = experience});
    return run.experiences.back();
  }

  void take_errors(const json::object& object, std::int64_t row) {
    const json::object of_targets = object_in(object, "rmse");
    for (const auto& field : of_targets) {
      const std::string target(field.key());
      auto known = std::ranges::find(run.errors, target, &TargetErrors::target);
      if (known == run.errors.end()) known = run.errors.insert(known, {target});
      std::vector<double>& errors = known->rows[row] = numbers_with_gaps(of_targets, target);
      for (double& error : errors) {
        if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
      }
    }
  }

  void take(const json::object& event) {
    const std::string kind = text_in(event, "event");
    summary_is_older = kind != "end" && kind != "stopped";
    if (kind == "start" || kind == "continue") {
      run.config = object_in(event, "config");
      if (kind == "start") run.machine = object_in(event, "machine");
      run.datasets.push_back(run.setting("stream", "dataset"));
      run.task = task_in(run);
    } else if (kind == "evaluate") {
      rows.emplace_back(integer(event, "row"), numbers(event, score_names(run.task).values));
      take_errors(event, rows.back().first);
      run.steps = integer(event, "steps");
    } else if (kind == "anytime") {
      run.anytime.points.push_back(point_from(event, run.task));
    } else if (kind == "experience") {
      ExperienceFigures& known = figures(integer(event, "experience"));
      known.seconds = number(event, "seconds");
      known.examples_per_second = number(event, "examples_per_second");
      known.parameters = number(event, "parameters");
      known.parameters_added = number(event, "parameters_added");
      known.usage = number(event, "usage");
      known.unevenness = number(event, "unevenness");
      known.dead_rows = number(event, "dead_rows");
      known.hit_rate = number(event, "hit_rate");
      known.experts = number(event, "experts");
      known.replay_bytes = number(event, "replay_bytes");
    } else if (kind == "commit" && text_in(event, "action") == "experience") {
      figures(integer(event, "experience")).store_bytes = number(event, "store_bytes");
    } else if (kind == "resume" && integer(event, "experience") > 0) {
      // The event of the commit that the run goes on from was written after the commit, and is cut
      // off.
      ExperienceFigures& known = figures(integer(event, "experience"));
      if (!known.store_bytes) known.store_bytes = number(event, "store_bytes");
    } else if (kind == "routing") {
      run.routing.push_back({integer(event, "row"), numbers_with_gaps(event, "drift"),
                             numbers_with_gaps(event, "leak"),
                             numbers_with_gaps(event, "weight_forgetting")});
    } else if (kind == "end" || kind == "stopped") {
      run.seconds = number(event, "seconds").value_or(0);
      run.finished = kind == "end";
    }
  }

  void take_summary(const json::object& summary) {
    if (run.config.empty()) run.config = object_in(summary, "config");
    run.task = task_in(run);
    if (run.machine.empty()) run.machine = object_in(summary, "machine");
    if (summary_is_older) return;
    if (const json::value* matrix = summary.if_contains("matrix")) {
      run.matrix = ScoreMatrix::from_json(*matrix);
      rows.clear();
    }
    run.gate_accuracy = number(summary, "gate_accuracy");
    run.steps = integer(summary, "steps");
    run.seconds = number(summary, "seconds").value_or(0);
    run.state_digest = text_in(summary, "state_digest");
    const json::value* finished = summary.if_contains("finished");
    run.finished = finished != nullptr && finished->is_bool() && finished->get_bool();
    const json::object curve = object_in(summary, "anytime_curve");
    const json::value* points = curve.if_contains("points");
    if (points == nullptr || !points->is_array()) return;
    run.anytime.points.clear();
    for (const json::value& point : points->get_array()) {
      if (!point.is_object()) throw DataError("a point of the anytime curve is malformed");
      run.anytime.points.push_back(point_from(point.get_object(), run.task));
    }
  }

  void require_fractions() const {
    for (std::int64_t row = 0; row <= run.matrix.experiences(); ++row) {
      for (std::int64_t column = 0; column < run.matrix.experiences(); ++column) {
        if (!run.matrix.has(row, column)) continue;
        const double score = run.matrix.at(row, column);
        if (score >= 0 && score <= 1) continue;
        throw DataError("score " + std::to_string(score) + " is not a fraction");
      }
    }
  }

  RunFolder finish() {
    if (!rows.empty()) {
      // A run that went on with further data has more test sets in its later rows.
      for (auto& [row, scores] : rows) {
        if (scores.empty()) throw DataError("a row of the score matrix is empty");
        if (&scores == &rows.front().second) {
          run.matrix = ScoreMatrix(std::ssize(scores));
        }
        while (run.matrix.experiences() < std::ssize(scores)) run.matrix.extend();
        run.matrix.set_row(row, std::move(scores));
      }
    }
    if (run.datasets.empty()) run.datasets.push_back(run.setting("stream", "dataset"));
    run.anytime.task = run.task;
    run.anytime.test_sets = run.matrix.experiences();
    run.anytime.experiences = run.strategy() == "joint" ? 1 : run.matrix.experiences();
    const json::object train = object_in(run.config, "train");
    run.anytime.options = {integer(train, "anytime_every"), integer(train, "anytime_first"),
                           integer(train, "anytime_examples")};
    const auto too_many = [&](const AnytimePoint& point) {
      return std::ssize(point.scores) > run.anytime.test_sets ||
             point.experience > run.anytime.experiences;
    };
    if (std::any_of(run.anytime.points.begin(), run.anytime.points.end(), too_many)) {
      throw DataError("the anytime curve has more experiences than the matrix");
    }
    std::sort(run.experiences.begin(), run.experiences.end(),
              [](const auto& a, const auto& b) { return a.experience < b.experience; });
    bool any = false;
    for (std::int64_t row = 0; row <= run.matrix.experiences(); ++row) {
      any = any || run.matrix.has_row(row);
    }
    if (!any) throw DataError("no score was recorded yet");
    if (score_names(run.task).percent) require_fractions();
    return std::move(run);
  }
};

std::string shell_quoted(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=+@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  quoted += '\'';
  return quoted;
}

std::string flag_of(std::string_view field) {
  std::string flag(field);
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string text_of(const json::value& value) {
  if (value.is_string()) return std::string(value.get_string());
  if (value.is_double()) {
    char text[40];
    const auto end = std::to_chars(text, text + sizeof(text), value.get_double()).ptr;
    return {text, end};
  }
  return json::serialize(value);
}

}  // namespace

std::string RunFolder::setting(std::string_view section, std::string_view field) const {
  const json::object fields = object_in(config, section);
  const json::value* value = fields.if_contains(field);
  return value != nullptr ? text_of(*value) : std::string();
}

json::object RunFolder::metrics() const {
  json::object all = all_metrics(matrix, task);
  if (anytime.options.on()) {
    for (const auto& metric : all_metrics(anytime)) all[metric.key()] = metric.value();
  }
  if (gate_accuracy) all["gate_accuracy"] = *gate_accuracy;
  return all;
}

RunFolder read_run_folder(const fs::path& folder) {
  const fs::path events = folder / "events.jsonl", summary = folder / "summary.json";
  if (!fs::exists(events) && !fs::exists(summary)) {
    throw DataError(folder.string() + " is no run folder: it has no events.jsonl");
  }
  Reader reader;
  reader.run.folder = folder;
  std::string place = events.string();
  try {
    std::ifstream in(events, std::ios::binary);
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      const bool cut = in.eof();  // without an end of line
      place = events.string() + ", line ";
      place += std::to_string(++number);
      boost::system::error_code error;
      const json::value event = json::parse(line, error);
      if (error || !event.is_object()) {
        if (cut) break;
        throw DataError("not a JSON object");
      }
      reader.take(event.get_object());
    }
    if (fs::exists(summary)) {
      place = summary.string();
      std::ifstream file(summary, std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      boost::system::error_code error;
      const json::value value = json::parse(text, error);
      if (error || !value.is_object()) throw DataError("not a JSON object");
      reader.take_summary(value.get_object());
    }
    place = folder.string();
    return reader.finish();
  } catch (const Error& error) {
    throw DataError(place + ": " + error.what());
  }
}

std::string reproducing_command(const RunFolder& run) {
  std::string command = "perennial train --store DIR";
  if (const std::optional<double> threads = number(run.machine, "threads")) {
    command += " --threads ";
    command += std::to_string(static_cast<std::int64_t>(*threads));
  }
  const json::object defaults = RunConfig().to_json();
  for (const auto& section : run.config) {
    if (!section.value().is_object()) continue;
    const json::object plain = object_in(defaults, section.key());
    for (const auto& field : section.value().get_object()) {
      const json::value* usual = plain.if_contains(field.key());
      const bool is_strategy = field.key() == "strategy" || field.key() == "stream";
      if (usual != nullptr && *usual == field.value() && !is_strategy) continue;
      const bool off = field.value().is_bool() && !field.value().get_bool();
      command.append(off ? " --no-" : " --").append(flag_of(field.key()));
      if (!field.value().is_bool())
        command.append(" ").append(shell_quoted(text_of(field.value())));
    }
  }
  return command;
}

}  // namespace perennial::continual
