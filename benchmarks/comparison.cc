// SPDX-License-Identifier: Apache-2.0
// Runs comparisons through Google Benchmark and writes their rows.
#include "comparison.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string_view>
#include <utility>

#include "machine.h"

namespace perennial::bench {
namespace {

constexpr int kRepetitions = 5;

// Keeps each repetition's time, and shows the aggregates.
class Recorder : public benchmark::ConsoleReporter {
 public:
  Recorder() : ConsoleReporter(OO_Tabular) {}

  void ReportRuns(const std::vector<Run>& runs) override {
    std::vector<Run> shown;
    for (const Run& run : runs) {
      if (run.run_type == Run::RT_Iteration) {
        seconds_[run.run_name.function_name].push_back(
            run.GetAdjustedRealTime() / benchmark::GetTimeUnitMultiplier(run.time_unit));
      } else {
        shown.push_back(run);
      }
    }
    // Aggregates come in a call of their own; a single run (--smoke) has none.
    if (shown.empty() && runs.size() == 1) shown = runs;
    if (!shown.empty()) ConsoleReporter::ReportRuns(shown);
  }

  // Median seconds a call; 0 when it did not run (a filter left it out).
  double median(const std::string& name) {
    std::vector<double>& times = seconds_[name];
    if (times.empty()) return 0;
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  std::map<std::string, std::vector<double>> seconds_;
};

void add(const std::string& name, const std::function<void()>& call, const Arguments& arguments) {
  auto* registered = benchmark::RegisterBenchmark(name.c_str(), [call](benchmark::State& state) {
    for (auto _ : state) {
      call();
      benchmark::ClobberMemory();
    }
  });
  registered->Unit(benchmark::kMillisecond)->UseRealTime();
  if (arguments.smoke) {
    registered->Iterations(1);
  } else {
    registered->Repetitions(kRepetitions)->MinTime(0.2);
  }
}

boost::json::array range_array(const Sample& sample) { return {sample.low, sample.high}; }

boost::json::value or_null(double value) {
  return value > 0 ? boost::json::value(value) : boost::json::value(nullptr);
}

// A row a line.
int write_json(const Arguments& arguments, const boost::json::object& machine,
               const boost::json::array& rows) {
  if (arguments.json.empty()) return 0;
  std::ofstream file(arguments.json);
  file << "{\"machine\": " << boost::json::serialize(machine) << ",\n \"rows\": [";
  const char* separator = "\n  ";
  for (const boost::json::value& row : rows) {
    file << std::exchange(separator, ",\n  ") << boost::json::serialize(row);
  }
  file << "\n]}\n";
  file.close();
  if (!file) {
    std::fprintf(stderr, "%s could not be written\n", arguments.json.c_str());
    return 1;
  }
  return 0;
}

std::string range_of(const Sample& sample) {
  char text[96];
  std::snprintf(text, sizeof text, "%.4g (%.4g-%.4g)", sample.median, sample.low, sample.high);
  return text;
}

}  // namespace

Arguments parse_arguments(int argc, char** argv, const std::vector<OwnFlag>& own) {
  Arguments arguments;
  arguments.rest.emplace_back(argv[0]);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool is_own = std::ranges::find(own, argument, &OwnFlag::name) != own.end();
    if (argument == "--smoke") {
      arguments.smoke = true;
    } else if (argument == "--json" && i + 1 < argc) {
      arguments.json = argv[++i];
    } else if (is_own && i + 1 < argc) {
      arguments.own[std::string(argument)] = argv[i + 1];
      ++i;
    } else if (own.empty() && argument.starts_with("--benchmark_")) {
      arguments.rest.emplace_back(argument);
    } else {
      const bool help = argument == "--help";
      std::string more = own.empty() ? " [--benchmark_... (Google Benchmark's own)]" : "";
      for (const OwnFlag& flag : own) more += " [" + flag.name + " " + flag.value + "]";
      std::fprintf(help ? stdout : stderr, "usage: %s [--json FILE] [--smoke]%s\n", argv[0],
                   more.c_str());
      std::exit(help ? 0 : 2);
    }
  }
  return arguments;
}

int run_comparisons(const Arguments& arguments, const std::vector<Comparison>& comparisons) {
  const boost::json::object machine = describe_machine(".");
  std::vector<std::string> words = arguments.rest;
  if (!arguments.smoke) words.emplace_back("--benchmark_enable_random_interleaving=true");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());

  for (const Comparison& comparison : comparisons) {
    add(comparison.name + "/ours", comparison.ours, arguments);
    add(comparison.name + "/baseline", comparison.baseline, arguments);
    if (comparison.ceiling) add(comparison.name + "/ceiling", comparison.ceiling, arguments);
  }
  Recorder recorder;
  benchmark::RunSpecifiedBenchmarks(&recorder);

  boost::json::array rows;
  std::printf("\n%-24s %12s %12s %12s %8s\n", "rates", "ours", "baseline", "ceiling", "ratio");
  for (const Comparison& comparison : comparisons) {
    const auto rate = [&](const char* side, double work) {
      const double seconds = recorder.median(comparison.name + side);
      return seconds > 0 ? work / seconds : 0;
    };
    const double ours = rate("/ours", comparison.work);
    const double baseline = rate("/baseline", comparison.work);
    const double ceiling = rate("/ceiling", comparison.ceiling_work);
    if (ours <= 0 || baseline <= 0) continue;
    std::printf("%-24s %12.4g %12.4g ", comparison.name.c_str(), ours, baseline);
    if (ceiling > 0) {
      std::printf("%12.4g", ceiling);
    } else {
      std::printf("%12s", "-");
    }
    std::printf(" %8.2f  %s\n", ours / baseline, comparison.unit.c_str());
    rows.push_back({{"name", comparison.name},
                    {"ours", ours},
                    {"baseline", baseline},
                    {"unit", comparison.unit},
                    {"ratio", ours / baseline},
                    {"target", or_null(comparison.target.value_or(0))},
                    {"ceiling", or_null(ceiling)}});
  }
  return write_json(arguments, machine, rows);
}

Sample summarize(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  return {.median = values[values.size() / 2], .low = values.front(), .high = values.back()};
}

int report_rows(const Arguments& arguments, const boost::json::object& machine,
                const std::vector<Row>& rows) {
  boost::json::array json;
  std::printf("| name | ours | baseline | ceiling | unit | ratio | target | |\n");
  std::printf("|---|---:|---:|---:|---|---:|---:|---|\n");
  for (const Row& row : rows) {
    char ceiling[32] = "";
    char target[32] = "";
    if (row.ceiling) std::snprintf(ceiling, sizeof ceiling, "%.4g", *row.ceiling);
    if (row.target) std::snprintf(target, sizeof target, "%.4g", *row.target);
    const char* verdict = !row.target ? "" : row.ratio >= *row.target ? "met" : "MISSED";
    std::printf("| %s | %s | %s | %s | %s | %.2f | %s | %s |\n", row.name.c_str(),
                range_of(row.ours).c_str(), range_of(row.baseline).c_str(), ceiling,
                row.unit.c_str(), row.ratio, target, verdict);
    json.push_back({{"name", row.name},
                    {"ours", row.ours.median},
                    {"baseline", row.baseline.median},
                    {"unit", row.unit},
                    {"ours_range", range_array(row.ours)},
                    {"baseline_range", range_array(row.baseline)},
                    {"ratio", row.ratio},
                    {"target", or_null(row.target.value_or(0))},
                    {"ceiling", or_null(row.ceiling.value_or(0))}});
  }
  return write_json(arguments, machine, json);
}

}  // namespace perennial::bench
