// SPDX-License-Identifier: Apache-2.0
// Fills charts with what groups of runs recorded.
#include "report/figures.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <map>

#include "report/charts.h"
#include "report/html.h"

namespace perennial::continual::report {

namespace {

std::string over_runs(const Group& group) {
  return group.runs.size() > 1 ? cat({"mean of ", std::to_string(group.runs.size()), " runs"}) : "";
}

std::vector<std::string> row_names(std::size_t rows) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < rows; ++i) names.push_back(std::to_string(i));
  return names;
}

// Means by x over the runs of a group: a series has the points that every run has.
Series mean_series(
    const Group& group,
    const std::function<void(const RunFolder&, const std::function<void(double, double)>&)>& walk) {
  std::map<double, std::pair<double, std::size_t>> sums;
  for (const RunFolder* run : group.runs) {
    walk(*run, [&](double x, double y) {
      sums[x].first += y;
      ++sums[x].second;
    });
  }
  Series series{group.name, {}};
  for (const auto& [x, sum] : sums) {
    if (sum.second != group.runs.size()) continue;
    series.points.emplace_back(x, sum.first / static_cast<double>(sum.second));
  }
  return series;
}

template <class Walk>
std::vector<Series> all_series(const std::vector<Group>& groups, const Walk& walk) {
  std::vector<Series> series;
  bool any = false;
  for (const Group& group : groups) {
    series.push_back(mean_series(group, walk));
    any = any || !series.back().points.empty();
  }
  return any ? series : std::vector<Series>{};
}

// How the scores of all groups are shown: times 100 as percent, or as they are.
struct Shown {
  double factor = 1;
  int decimals = 3;
  std::string unit, note;  // "percent", ", percent"
};

Shown shown_of(const std::vector<Group>& groups) {
  const ScoreNames& names = score_names(groups.front().first().task);
  return names.percent ? Shown{100, 2, "percent", ", percent"} : Shown{1, 3, names.title, ""};
}

std::string bars_of(const std::vector<Group>& groups, const std::string& metric,
                    const std::string& title) {
  const Shown shown = shown_of(groups);
  std::vector<Bar> bars;
  for (const Group& group : groups) {
    const std::optional<SeedStatistics> s = statistic(group, metric, groups);
    if (!s) continue;
    std::string value = fixed(shown.factor * s->mean, shown.decimals);
    if (s->sd) value += cat({" ± ", fixed(shown.factor * *s->sd, shown.decimals)});
    bars.push_back({group.name, shown.factor * s->mean,
                    s->sd ? std::optional(shown.factor * *s->sd) : std::nullopt, value});
  }
  return bar_chart({"bars-" + metric, title,
                    metric + shown.note + "; whiskers: ± one standard deviation over seeds"},
                   bars);
}

// Steps at which the experiences of a run ended.
std::vector<double> ends_of(const RunFolder& run) {
  std::vector<double> ends;
  for (const AnytimePoint& point : run.anytime.points) {
    if (point.end) ends.push_back(static_cast<double>(point.steps));
  }
  return ends;
}

std::string cost_chart(const std::vector<Group>& groups, const Caption& caption,
                       std::optional<double> ExperienceFigures::*figure,
                       const std::function<Unit(double)>& unit_of, const std::string& fallback) {
  std::vector<Series> series = all_series(groups, [&](const RunFolder& run, const auto& add) {
    for (const ExperienceFigures& figures : run.experiences) {
      if (figures.*figure) add(static_cast<double>(figures.experience), *(figures.*figure));
    }
  });
  double largest = 0;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) largest = std::max(largest, y);
  }
  const Unit unit = unit_of(largest);
  for (Series& one : series) {
    for (auto& [x, y] : one.points) y /= unit.divisor;
  }
  const std::string name = unit.name[0] != '\0' ? unit.name : fallback;
  return line_chart({caption, "after experience", name, std::move(series), true, true, {}, {}});
}

Unit no_unit(double) { return {1, ""}; }

}  // namespace

std::string titled(const std::vector<Group>& groups, const std::string& rest) {
  std::string title = score_names(groups.front().first().task).title;
  title[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(title[0])));
  return title + rest;
}

std::string comparison_figures(const std::vector<Group>& groups) {
  return bars_of(groups, score_names(groups.front().first().task).metric,
                 titled(groups, " at the end")) +
         bars_of(groups, "forgetting.chaudhry", "Forgetting") +
         bars_of(groups, "anytime", titled(groups, " while learning"));
}

std::string matrix_figures(const std::vector<Group>& groups) {
  std::string figures;
  for (const Group& group : groups) {
    HeatMap map;
    const Shown shown = shown_of(groups);
    std::string note = shown.unit + "; row: experiences learnt, column: test set";
    const std::string runs = over_runs(group);
    if (!runs.empty()) note += cat({"; ", runs});
    map.caption = {"matrix", groups.size() > 1 ? group.name : titled(groups, " matrix"), note};
    map.row_label = "learnt";
    map.column_label = "test set";
    map.values = mean_matrix(group);
    map.rows = row_names(map.values.size());
    map.mark_diagonal = true;
    map.percent = shown.factor != 1;
    figures += heat_map(map);
  }
  figures += error_tables(groups);
  const Shown shown = shown_of(groups);
  const std::string name = score_names(groups.front().first().task).title;
  const auto forgetting = [&](const RunFolder& run, const auto& add) {
    const std::optional<std::vector<double>> terms = forgetting_by_experience(run.matrix);
    if (!terms) return;
    for (std::size_t j = 0; j < terms->size(); ++j) {
      add(static_cast<double>(j + 1), shown.factor * (*terms)[j]);
    }
  };
  figures += line_chart({{"forgetting", "Forgetting by experience",
                          cat({"best ", name, " before the end minus ", name, " at the end",
                               shown.factor == 1 ? "" : ", points"})},
                         "experience",
                         shown.factor == 1 ? name : "points",
                         all_series(groups, forgetting),
                         true,
                         true,
                         {},
                         {}});
  return figures;
}

std::string learning_figures(const std::vector<Group>& groups) {
  const Shown shown = shown_of(groups);
  const std::string name = score_names(groups.front().first().task).title;
  const auto seen = [&](const RunFolder& run, const auto& add) {
    for (std::int64_t k = 1; k <= run.matrix.experiences(); ++k) {
      if (!run.matrix.has_row(k)) continue;
      double sum = 0;
      for (std::int64_t j = 0; j < k; ++j) sum += run.matrix.at(k, j);
      add(static_cast<double>(k), shown.factor * sum / static_cast<double>(k));
    }
  };
  std::string figures = line_chart({{"seen", titled(groups, " on the experiences seen so far"),
                                     "after each experience, whole test sets" + shown.note},
                                    "experiences learnt",
                                    shown.unit,
                                    all_series(groups, seen),
                                    false,
                                    true,
                                    {},
                                    {}});
  const auto points = [&](const RunFolder& run, const auto& add) {
    double last = -1;
    for (const AnytimePoint& point : run.anytime.points) {
      // The point before a first minibatch has a test set more than the end before it.
      const auto steps = static_cast<double>(point.steps);
      if (point.minibatch == 0 || point.end || steps == last) continue;
      add(steps, shown.factor * point.mean());
      last = steps;
    }
  };
  const AnytimeOptions& options = groups.front().first().anytime.options;
  std::string how =
      "on " +
      (options.anytime_examples > 0 ? std::to_string(options.anytime_examples) + " examples of"
                                    : std::string("all of")) +
      " each test set";
  if (options.anytime_every > 0) {
    how += cat({", every ", std::to_string(options.anytime_every), " steps"});
  }
  LineChart anytime{
      {"anytime", cat({"Anytime ", name, " on the experiences seen so far"}), how + shown.note},
      "steps",
      shown.unit,
      all_series(groups, points),
      false,
      true,
      {},
      {}};
  anytime.marks = ends_of(groups.front().first());
  figures += line_chart(anytime);
  if (groups.size() > 1 || groups.front().experiences() > 10) return figures;
  // One strategy: each test set's own curve.
  LineChart each{{"anytime-each", cat({"Anytime ", name, " on each test set"}), how + shown.note},
                 "steps",
                 shown.unit,
                 {},
                 false,
                 true,
                 {},
                 {}};
  for (std::int64_t j = 0; j < groups.front().experiences(); ++j) {
    Series series = mean_series(groups.front(), [&](const RunFolder& run, const auto& add) {
      double last = -1;
      for (const AnytimePoint& point : run.anytime.points) {
        const auto steps = static_cast<double>(point.steps);
        if (point.end || steps == last || std::ssize(point.scores) <= j) continue;
        add(steps, shown.factor * point.scores[static_cast<std::size_t>(j)]);
        last = steps;
      }
    });
    series.name = cat({"test ", std::to_string(j + 1)});
    if (!series.points.empty()) each.series.push_back(std::move(series));
  }
  each.marks = anytime.marks;
  return figures + line_chart(each);
}

std::string routing_figures(const std::vector<Group>& groups) {
  std::string figures;
  const auto map_of = [&](const Group& group, const Caption& caption,
                          std::vector<double> RoutingRow::*values) {
    HeatMap map;
    map.caption = caption;
    if (groups.size() > 1) map.caption.title = cat({group.name, ": ", caption.title});
    map.row_label = "learnt";
    map.column_label = "inputs of experience";
    bool any = false;
    for (const RoutingRow& row : group.first().routing) {
      map.rows.push_back(std::to_string(row.row));
      map.values.emplace_back();
      for (const double value : row.*values) {
        map.values.back().push_back(std::isnan(value) ? std::nullopt : std::optional(value));
        any = any || !std::isnan(value);
      }
    }
    if (any) figures += heat_map(map);
  };
  for (const Group& group : groups) {
    map_of(group,
           {"drift", "Routing drift",
            "percent of inputs whose set of experts changed since their experience was learnt"},
           &RoutingRow::drift);
    map_of(group, {"leak", "Leak", "percent of retrieved slots that fall in newer generations"},
           &RoutingRow::leak);
    map_of(group,
           {"weight-forgetting", "Weight forgetting",
            "percent of the probe's score lost, the generation given: what changed weights cost"},
           &RoutingRow::weight_forgetting);
  }
  const auto shares = [&](const Caption& caption, std::optional<double> ExperienceFigures::*figure,
                          double factor, const char* unit) {
    const auto of_run = [&](const RunFolder& run, const auto& add) {
      for (const ExperienceFigures& known : run.experiences) {
        if (known.*figure) add(static_cast<double>(known.experience), factor * *(known.*figure));
      }
    };
    figures +=
        line_chart({caption, "experience", unit, all_series(groups, of_run), true, true, {}, {}});
  };
  shares({"usage", "Experts in use", "percent of a generation's experts that its inputs retrieve"},
         &ExperienceFigures::usage, 100, "percent");
  shares({"unevenness", "Unevenness", "divergence of the experts' weights from uniform, nats"},
         &ExperienceFigures::unevenness, 1, "nats");
  shares({"dead-rows", "Dead rows", "percent of a generation's rows that no input retrieves from"},
         &ExperienceFigures::dead_rows, 100, "percent");
  shares({"hit-rate", "Page hits", "percent of the pages that training used and were in memory"},
         &ExperienceFigures::hit_rate, 100, "percent");
  return figures;
}

std::string cost_figures(const std::vector<Group>& groups) {
  return cost_chart(groups, {"parameters", "Parameters", "of the model, experts included"},
                    &ExperienceFigures::parameters, count_unit, "parameters") +
         cost_chart(groups, {"parameters-added", "Parameters added", "by each experience"},
                    &ExperienceFigures::parameters_added, count_unit, "parameters") +
         cost_chart(groups, {"replay-bytes", "Strategy memory", "kept beside the model"},
                    &ExperienceFigures::replay_bytes, byte_unit, "bytes") +
         cost_chart(groups, {"store-bytes", "Store", "on disk, after the experience's commit"},
                    &ExperienceFigures::store_bytes, byte_unit, "bytes") +
         cost_chart(groups, {"seconds", "Training time of each experience", "wall time, seconds"},
                    &ExperienceFigures::seconds, no_unit, "seconds") +
         cost_chart(groups, {"speed", "Training speed", "examples per second, without evaluations"},
                    &ExperienceFigures::examples_per_second, no_unit, "examples/s");
}

}  // namespace perennial::continual::report
