// SPDX-License-Identifier: Apache-2.0
// Reads the protocols, which are JSON files that the build puts into the library.
#include "perennial/continual/protocol.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>

#include "run/protocol_files.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

const ProtocolFile& file_of(std::string_view name) {
  const std::span<const ProtocolFile> files = protocol_files();
  const auto found = std::find_if(files.begin(), files.end(),
                                  [&](const ProtocolFile& file) { return file.name == name; });
  if (found != files.end()) return *found;
  std::string message = "protocol is '";
  message.append(name).append("'; there are ");
  for (const ProtocolFile& file : files) {
    if (&file != &files.front()) message.append(", ");
    message.append(file.name);
  }
  throw InvalidOptions(message);
}

json::object parse(const ProtocolFile& file) { return json::parse(file.text).as_object(); }

std::string optional_text(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr ? std::string() : json::value_to<std::string>(*value);
}

// What tuning does with a row, {"stream": {"experiences": 2}, "train": {"ridge": [1, 10]}}: lists
// are chosen from, what else there is holds for the trials.
void take_tuning(ProtocolRow& row, const json::object& sections) {
  for (const auto& section : sections) {
    for (const auto& field : section.value().as_object()) {
      if (field.value().is_array()) {
        row.axes.push_back(
            {std::string(section.key()), std::string(field.key()), field.value().as_array()});
      } else {
        json::value& fields = row.trial_settings[section.key()];
        if (!fields.is_object()) fields.emplace_object();
        fields.as_object()[field.key()] = field.value();
      }
    }
  }
}

}  // namespace

const PublishedResult* Protocol::find(std::string_view row, std::string_view dataset) const {
  const auto found = std::find_if(published.begin(), published.end(), [&](const auto& result) {
    return result.row == row && result.dataset == dataset;
  });
  return found == published.end() ? nullptr : &*found;
}

std::vector<std::string> protocol_names() {
  std::vector<std::string> names;
  for (const ProtocolFile& file : protocol_files()) names.emplace_back(file.name);
  return names;
}

std::vector<std::string> protocol_scenarios(std::string_view name) {
  const json::object file = parse(file_of(name));
  std::vector<std::string> names;
  for (const auto& scenario : file.at("scenarios").as_object()) {
    names.emplace_back(scenario.key());
  }
  return names;
}

Protocol load_protocol(std::string_view name, std::string_view scenario,
                       const std::string& dataset) {
  const json::object file = parse(file_of(name));
  const json::object& scenarios = file.at("scenarios").as_object();
  const std::string chosen(scenario.empty() ? std::string_view(scenarios.begin()->key())
                                            : scenario);
  if (!scenarios.contains(chosen)) {
    std::string message = "scenario is '" + chosen;
    message.append("'; protocol ").append(name).append(" has ");
    for (const auto& known : scenarios) {
      if (known.key() != scenarios.begin()->key()) message.append(", ");
      message.append(known.key());
    }
    throw InvalidOptions(message);
  }
  const json::object& part = scenarios.at(chosen).as_object();
  Protocol protocol{.name = std::string(name),
                    .title = optional_text(file, "title"),
                    .source = optional_text(file, "source"),
                    .deviates = optional_text(file, "deviates")};
  const std::string where = "protocol " + protocol.name;
  RunConfig base = with_settings({}, file.at("settings").as_object(), where);
  if (const json::value* more = part.if_contains("settings")) {
    base = with_settings(base, more->as_object(), where);
  }
  base.stream.dataset = dataset;
  for (const auto& row : part.at("rows").as_object()) {
    ProtocolRow made{
        std::string(row.key()),
        with_settings(base, row.value().as_object(), where + " row " + std::string(row.key()))};
    made.config.validate();
    if (const json::value* tune = part.if_contains("tune")) {
      const json::value* own = tune->as_object().if_contains(row.key());
      if (own != nullptr) take_tuning(made, own->as_object());
    }
    protocol.rows.push_back(std::move(made));
  }
  if (const json::value* tables = part.if_contains("published")) {
    for (const json::value& value : tables->as_array()) {
      const json::object& table = value.as_object();
      for (const auto& result : table.at("acc_percent").as_object()) {
        const json::array& numbers = result.value().as_array();
        PublishedResult made{.row = std::string(result.key()),
                             .dataset = optional_text(table, "dataset"),
                             .acc = numbers.at(0).to_number<double>() / 100,
                             .spread_kind = optional_text(table, "spread"),
                             .source = optional_text(table, "source")};
        if (numbers.size() > 1) made.spread = numbers.at(1).to_number<double>() / 100;
        if (const json::value* seeds = table.if_contains("seeds")) {
          made.seeds = seeds->to_number<std::int64_t>();
        }
        protocol.published.push_back(std::move(made));
      }
    }
  }
  return protocol;
}

RunConfig with_settings(const RunConfig& config, const json::object& settings,
                        const std::string& where) {
  RunConfig made = config;
  try {
    read_json(made, settings);
  } catch (const InvalidOptions& error) {
    throw DataError(where + ": " + error.what());
  }
  return made;
}

RunConfig with_seed(RunConfig config, std::int64_t seed) {
  config.stream.stream_seed = seed;
  config.model.seed = seed;
  config.train.train_seed = seed;
  config.train.strategy_options.set("strategy_seed", seed);
  config.train.gate_options.gate_seed = seed;
  return config;
}

RunConfig with_limits(RunConfig config, std::int64_t limit, std::int64_t test_limit) {
  if (limit > 0 && (config.stream.limit == 0 || config.stream.limit > limit)) {
    config.stream.limit = limit;
  }
  if (test_limit > 0) config.stream.test_limit = test_limit;
  return config;
}

}  // namespace perennial::continual
