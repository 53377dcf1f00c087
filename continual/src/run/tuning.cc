// SPDX-License-Identifier: Apache-2.0
// The grid, its widening, and the axes.
#include "perennial/continual/tuning.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>
#include <span>
#include <string_view>

#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// Learning rates of an optimizer, ascending; [first, last] are tried in any case.
struct Ladder {
  OptimizerKind optimizer;
  std::span<const double> rates;
  std::size_t first, last;
};
constexpr std::array<double, 5> kAdamRates = {1e-4, 3e-4, 1e-3, 3e-3, 1e-2};
constexpr std::array<double, 6> kSgdRates = {0.003, 0.01, 0.03, 0.1, 0.3, 1};
constexpr std::array<LrSchedule, 2> kSchedules = {LrSchedule::constant, LrSchedule::linear};

std::array<Ladder, 2> ladders() {
  return {Ladder{OptimizerKind::adam, kAdamRates, 1, 3},
          Ladder{OptimizerKind::sgd, kSgdRates, 2, 3}};
}

std::string plain_text(const json::value& value) {
  if (value.is_string()) return std::string(value.as_string());
  char text[32];
  std::snprintf(text, sizeof text, "%g", value.to_number<double>());
  return text;
}

json::value value_of(const RunConfig& config, const TuningAxis& axis) {
  return config.settings().at(axis.section).at(axis.field);
}

void set(json::object& settings, const std::string& section, const std::string& field,
         const json::value& value) {
  json::value& fields = settings[section];
  if (!fields.is_object()) fields.emplace_object();
  fields.as_object()[field] = value;
}

class Search {
 public:
  Search(const ProtocolRow& row, const std::function<std::optional<double>(const Trial&)>& accuracy)
      : row_(row), accuracy_(accuracy) {
    for (const TuningAxis& axis : row.axes)
      set(own_, axis.section, axis.field, value_of(row.config, axis));
  }

  Tuning run() {
    if (row_.config.model.head == HeadKind::analytic) {
      try_settings(own_);
    } else {
      search_rates();
    }
    for (const TuningAxis& axis : row_.axes) {
      if (!tuning_.open.empty()) break;
      search_axis(axis);
    }
    if (!tuning_.open.empty()) {
      tuning_.best.reset();
      tuning_.edges.clear();
    }
    return std::move(tuning_);
  }

 private:
  void try_settings(const json::object& settings) {
    const std::string where = "tuning of " + row_.name;
    Trial trial{settings, with_settings(row_.config, settings, where), {}};
    trial.run = with_seed(with_settings(trial.config, row_.trial_settings, where), kTuningSeed);
    trial.run.stream.validation_share = kTuningShare;
    try {
      trial.run.validate();
    } catch (const InvalidOptions&) {
      return;
    }
    if (!names_.insert(trial.name()).second) return;
    const std::optional<double> acc = accuracy_(trial);
    if (!acc) {
      tuning_.open.push_back(std::move(trial));
      return;
    }
    tuning_.tried.push_back({std::move(trial), *acc});
    if (!tuning_.best || *acc > tuning_.best->acc) tuning_.best = tuning_.tried.back();
  }

  void try_rate(OptimizerKind optimizer, double rate, LrSchedule schedule) {
    json::object settings = own_;
    set(settings, "train", "optimizer", json::string(enum_name(optimizer)));
    set(settings, "train", "lr", rate);
    set(settings, "train", "lr_schedule", json::string(enum_name(schedule)));
    try_settings(settings);
  }

  void search_rates() {
    std::array<Ladder, 2> all = ladders();
    for (const Ladder& ladder : all) {
      for (std::size_t i = ladder.first; i <= ladder.last; ++i) {
        for (const LrSchedule schedule : kSchedules) {
          try_rate(ladder.optimizer, ladder.rates[i], schedule);
        }
      }
    }
    while (tuning_.open.empty() && tuning_.best) {
      const TrainOptions best = tuning_.best->trial.config.train;
      Ladder& ladder = best.optimizer == all[0].optimizer ? all[0] : all[1];
      const bool lowest = best.lr == ladder.rates[ladder.first];
      const bool highest = best.lr == ladder.rates[ladder.last];
      if (lowest && ladder.first > 0) {
        try_rate(best.optimizer, ladder.rates[--ladder.first], best.lr_schedule);
      } else if (highest && ladder.last + 1 < ladder.rates.size()) {
        try_rate(best.optimizer, ladder.rates[++ladder.last], best.lr_schedule);
      } else {
        if (lowest || highest) say_edge("lr", plain_text(best.lr), lowest);
        return;
      }
    }
  }

  // The best so far, with each value of the axis.
  void search_axis(const TuningAxis& axis) {
    if (!tuning_.best) return;
    const json::object base = tuning_.best->trial.settings;
    for (const json::value& value : axis.values) {
      json::object settings = base;
      set(settings, axis.section, axis.field, value);
      try_settings(settings);
    }
    if (!tuning_.open.empty() || axis.values.front().is_string()) return;
    const std::string chosen = plain_text(value_of(tuning_.best->trial.config, axis));
    if (chosen == plain_text(axis.values.front())) say_edge(axis.field, chosen, true);
    if (chosen == plain_text(axis.values.back())) say_edge(axis.field, chosen, false);
  }

  void say_edge(const std::string& field, const std::string& value, bool lowest) {
    std::string text = field + " " + value;
    text.append(" is the ").append(lowest ? "smallest" : "largest").append(" that was tried");
    tuning_.edges.push_back(std::move(text));
  }

  const ProtocolRow& row_;
  const std::function<std::optional<double>(const Trial&)>& accuracy_;
  json::object own_;  // the row's values of its axes
  Tuning tuning_;
  std::set<std::string> names_;  // of what was tried or is open
};

}  // namespace

std::string Trial::text() const {
  std::string rates, others;
  for (const auto& section : settings) {
    for (const auto& field : section.value().as_object()) {
      const std::string_view name = field.key();
      if (name == "optimizer" || name == "lr" || name == "lr_schedule") {
        rates += (rates.empty() ? "" : " ") + plain_text(field.value());
      } else {
        others += ", " + std::string(name) + " " + plain_text(field.value());
      }
    }
  }
  if (rates.empty() && others.empty()) return "as the protocol has it";
  return rates.empty() ? others.substr(2) : rates + others;
}

std::string Trial::name() const {
  std::string name;
  for (const char c : text()) {
    if (c != ',') name += c == ' ' ? '-' : c;
  }
  return name;
}

Tuning tune(const ProtocolRow& row,
            const std::function<std::optional<double>(const Trial&)>& accuracy) {
  return Search(row, accuracy).run();
}

}  // namespace perennial::continual
