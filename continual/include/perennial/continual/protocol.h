// SPDX-License-Identifier: Apache-2.0
// Protocols: the settings that published comparisons of continual-learning methods use, by name,
// with the numbers that were published.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

// A result that others published or that a rival reached, for the row of a protocol.
struct PublishedResult {
  std::string row;
  std::string dataset;  // that it was measured on
  double acc = 0;       // a fraction
  std::optional<double> spread = {};
  std::string spread_kind;  // "sd", "sem", "ci"; empty: not stated
  std::int64_t seeds = 0;   // 0: not stated
  std::string source;
};

// A setting that tuning chooses for a row beside optimizer, learning rate and schedule.
struct TuningAxis {
  std::string section, field;  // "train", "ridge"
  boost::json::array values;   // to choose from; numbers ascend
};

// One line of a protocol's table: a strategy with its settings.
struct ProtocolRow {
  std::string name;
  RunConfig config;
  std::vector<TuningAxis> axes = {};  // in the order in which they are chosen
  // What trials alone have, as with_settings() takes it: a shorter stream for a row that would take
  // too long, and whose choice does not depend on the rest.
  boost::json::object trial_settings = {};
};

struct Protocol {
  std::string name;
  std::string title;
  std::string source;    // of the settings
  std::string deviates;  // where these settings differ from the source's; empty: nowhere
  std::vector<ProtocolRow> rows = {};
  std::vector<PublishedResult> published = {};

  // What was published for a row on this data set.
  const PublishedResult* find(std::string_view row, std::string_view dataset) const;
};

// Names of all protocols, ascending.
std::vector<std::string> protocol_names();
// Scenarios that a protocol has; the first is its default. Throws InvalidOptions for an unknown
// name, with the nearest one.
std::vector<std::string> protocol_scenarios(std::string_view name);
// A protocol for a data set; `scenario` empty: the default. Throws InvalidOptions for unknown
// names. Every row's configuration is valid.
Protocol load_protocol(std::string_view name, std::string_view scenario,
                       const std::string& dataset);

// The configuration with the fields of {"stream": {...}, "model": {...}, "train": {...}} set.
// Throws DataError, which begins with `where`, for a section or field that there is none of.
RunConfig with_settings(const RunConfig& config, const boost::json::object& settings,
                        const std::string& where);
// The row with everything random drawn from `seed`: stream, initial values, order, strategy, gate.
RunConfig with_seed(RunConfig config, std::int64_t seed);
// Of a protocol's settings, for quick looks: at most so many training examples an experience.
RunConfig with_limits(RunConfig config, std::int64_t limit, std::int64_t test_limit);

}  // namespace perennial::continual
