// SPDX-License-Identifier: Apache-2.0
// perennial bench continual: the rows of a protocol over several seeds, each run in a process of
// its own; a table beside what was published, and one of each row at its own best.
#include <algorithm>
#include <array>
#include <boost/json/value_from.hpp>
#include <filesystem>
#include <iterator>
#include <optional>
#include <ostream>
#include <string_view>

#include "commands/commands.h"
#include "device.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/protocol.h"
#include "perennial/continual/report.h"
#include "perennial/continual/tables.h"
#include "perennial/continual/tuning.h"
#include "protocol_runs.h"
#include "protocol_tables.h"

namespace perennial::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// What every result is read against.
constexpr std::array<std::string_view, 2> kBounds = {"joint", "naive"};

bool is_bound(const std::string& row) {
  return std::find(kBounds.begin(), kBounds.end(), row) != kBounds.end();
}

// Rows asked for by name, "a,b,c", and the bounds, in the protocol's order.
std::vector<continual::ProtocolRow> chosen_rows(const continual::Protocol& protocol,
                                                const std::string& names, bool bounds) {
  if (names == "all") return protocol.rows;
  std::vector<std::string> wanted;
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find(',', begin), names.size());
    wanted.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
  std::vector<continual::ProtocolRow> rows;
  for (const continual::ProtocolRow& row : protocol.rows) {
    const auto found = std::find(wanted.begin(), wanted.end(), row.name);
    if (found == wanted.end() && !(bounds && is_bound(row.name))) continue;
    rows.push_back(row);
    if (found != wanted.end()) wanted.erase(found);
  }
  if (wanted.empty()) return rows;
  std::string message = "protocol " + protocol.name;
  message.append(" has no row '").append(wanted.front()).append("'; there are ");
  for (const continual::ProtocolRow& row : protocol.rows) {
    if (&row != &protocol.rows.front()) message.append(", ");
    message.append(row.name);
  }
  throw InvalidOptions(message);
}

// The runs of a benchmark and where they lie: OUT/runs/ROW/SEED, OUT/trials/ROW/SETTINGS and
// OUT/tuned/ROW/SEED.
class Bench {
 public:
  // Trials are judged on `judges` held-out examples an experience.
  Bench(fs::path out, std::vector<continual::ProtocolRow> rows, std::int64_t seeds,
        std::int64_t limit, std::int64_t test_limit, std::int64_t judges)
      : out_(std::move(out)),
        rows_(std::move(rows)),
        seeds_(seeds),
        limit_(limit),
        test_limit_(test_limit),
        judges_(judges) {}

  const std::vector<continual::ProtocolRow>& rows() const { return rows_; }

  // A row with the protocol's settings.
  std::vector<ProtocolRun> runs(const continual::ProtocolRow& row) const {
    return seeded(row, row.config, "runs", "");
  }

  // True where tuning chose what the protocol has: the runs are the same ones then.
  static bool is_protocols(const continual::ProtocolRow& row, const continual::Trial& chosen) {
    return continual::differences(row.config, chosen.config).empty();
  }

  // A row with what tuning chose.
  std::vector<ProtocolRun> tuned(const continual::ProtocolRow& row,
                                 const continual::Trial& chosen) const {
    if (is_protocols(row, chosen)) return runs(row);
    return seeded(row, chosen.config, "tuned", chosen.text() + ", ");
  }

  ProtocolRun trial(const continual::ProtocolRow& row, const continual::Trial& trial) const {
    return {row.name, row.name + ", " + trial.text() + ", on validation",
            continual::with_limits(trial.run, limit_, judges_),
            out_ / "trials" / row.name / trial.name()};
  }

  // How far tuning is, by what the trials that are done reached.
  continual::Tuning tuning(const continual::ProtocolRow& row) const {
    return continual::tune(row, [&](const continual::Trial& tried) -> std::optional<double> {
      const std::optional<continual::RunFolder> result = result_of(trial(row, tried));
      return result ? continual::acc(result->matrix) : std::nullopt;
    });
  }

  // Every run that is known to be needed by now.
  std::vector<ProtocolRun> plan(bool tune) const {
    std::vector<ProtocolRun> all;
    const auto add = [&](std::vector<ProtocolRun> more) {
      std::move(more.begin(), more.end(), std::back_inserter(all));
    };
    for (const continual::ProtocolRow& row : rows_) add(runs(row));
    if (!tune) return all;
    for (const continual::ProtocolRow& row : rows_) {
      const continual::Tuning found = tuning(row);
      for (const continual::Trial& open : found.open) all.push_back(trial(row, open));
      if (found.best && !is_protocols(row, found.best->trial)) add(tuned(row, found.best->trial));
    }
    return all;
  }

 private:
  std::vector<ProtocolRun> seeded(const continual::ProtocolRow& row,
                                  const continual::RunConfig& config, const char* folder,
                                  const std::string& settings) const {
    std::vector<ProtocolRun> runs;
    for (std::int64_t seed = 1; seed <= seeds_; ++seed) {
      const std::string number = std::to_string(seed);
      runs.push_back(
          {row.name, row.name + ", " + settings + "seed " + number,
           continual::with_limits(continual::with_seed(config, seed), limit_, test_limit_),
           out_ / folder / row.name / number});
    }
    return runs;
  }

  fs::path out_;
  std::vector<continual::ProtocolRow> rows_;
  std::int64_t seeds_, limit_, test_limit_, judges_;
};

// Held-out examples that judge a trial: kTuningExamples of an experience, or as many as each has.
// Throws as Stream does.
std::int64_t judges_of(continual::StreamOptions options) {
  std::int64_t judges = continual::kTuningExamples;
  if (options.test_limit > 0) judges = std::min(judges, options.test_limit);
  options.test_limit = 0;
  options.validation_share = continual::kTuningShare;
  options.stream_seed = continual::kTuningSeed;
  const continual::Stream held_out(options);
  for (std::int64_t e = 0; e < held_out.test_sets(); ++e) {
    judges = std::min(judges, held_out.test_size(e));
  }
  return judges;
}

// The runs of a row that are done; they join `folders` unless that is null.
continual::ResultRow collect(const std::string& name, const std::vector<ProtocolRun>& runs,
                             std::vector<continual::RunFolder>* folders) {
  continual::ResultRow row{name, {}};
  for (const ProtocolRun& run : runs) {
    std::optional<continual::RunFolder> result = result_of(run);
    if (!result) continue;
    json::object metrics = result->metrics();
    double seconds = 0;
    for (const continual::ExperienceFigures& experience : result->experiences) {
      seconds += experience.seconds.value_or(0);
    }
    metrics["seconds"] = seconds;
    row.add_run(metrics);
    if (folders != nullptr) folders->push_back(*std::move(result));
  }
  return row;
}

// What the runs that are done reached.
struct BenchResults {
  std::vector<continual::RunFolder> folders;
  std::vector<continual::ResultRow> rows;
  std::vector<TunedRow> tuned;
};

BenchResults results_of(const Bench& bench, bool tune) {
  BenchResults results;
  for (const continual::ProtocolRow& row : bench.rows()) {
    continual::ResultRow result = collect(row.name, bench.runs(row), &results.folders);
    if (!result.metrics.empty()) results.rows.push_back(std::move(result));
  }
  if (!tune) return results;
  for (const continual::ProtocolRow& row : bench.rows()) {
    continual::Tuning found = bench.tuning(row);
    if (!found.best) continue;
    const continual::Trial& chosen = found.best->trial;
    continual::ResultRow result =
        collect(row.name, bench.tuned(row, chosen),
                Bench::is_protocols(row, chosen) ? nullptr : &results.folders);
    if (!result.metrics.empty()) results.tuned.push_back({std::move(result), std::move(found)});
  }
  return results;
}

// Writes results.md, results.csv, report.html and, where rows were tuned, tuned.csv. Returns what
// the program prints.
std::string write_results(const fs::path& out, const continual::Protocol& protocol,
                          const std::string& dataset, const std::string& published_for,
                          const BenchResults& results) {
  std::vector<continual::TextTable> tables = {results_table(protocol, published_for, results.rows)};
  std::string written = "results.csv, report.html";
  continual::replace_file(out / "results.csv", continual::csv_table(results.rows));
  if (!results.tuned.empty()) {
    tables.push_back(tuned_table(results.tuned));
    std::vector<continual::ResultRow> tuned;
    for (const TunedRow& row : results.tuned) tuned.push_back(row.result);
    continual::replace_file(out / "tuned.csv", continual::csv_table(tuned));
    written = "results.csv, tuned.csv, report.html";
  }
  continual::replace_file(out / "report.html", continual::report_html(results.folders, tables));
  std::string body;
  for (const continual::TextTable& table : tables) {
    if (tables.size() > 1) body.append("## ").append(table.title).append("\n\n");
    body += continual::markdown_table(table);
    for (const std::string& note : table.notes) body.append("\n").append(note).append("\n");
    if (&table != &tables.back()) body += '\n';
  }
  const std::string& deviates = protocol.deviates;
  continual::replace_file(out / "results.md",
                          "# " + protocol.title + "\n\n" + dataset + ", in percent\n\n" +
                              (deviates.empty() ? "" : "Deviates: " + deviates + ".\n\n") + body);
  return protocol.title + ", " + dataset + ", in percent\n" +
         (deviates.empty() ? "" : "deviates: " + deviates + "\n") + "\n" + body +
         "\nwritten: " + (out / "results.md").string() + ", " + written + "\n";
}

int run_bench(const std::vector<std::string>& args) {
  std::vector<std::string> rest = args;
  const bool help = !rest.empty() && (rest.front() == "--help" || rest.front() == "-h");
  if (!help && (rest.empty() || rest.front() != "continual")) {
    throw InvalidOptions(
        "bench needs to be told of what: perennial bench continual --protocol NAME");
  }
  if (!help) rest.erase(rest.begin());
  std::string name, scenario, dataset = "fashion-mnist", strategies = "all", out;
  std::int64_t seeds = 3, limit = 0, test_limit = 0;
  bool no_bounds = false, tune = false;
  RunProtocolOptions options;
  CommonOptions common;
  Flags flags("bench continual", kBenchCommand.summary,
              "perennial bench continual --protocol split-class --seeds 3 --out results/");
  flags.require("protocol", name, "NAME", "settings and rows; `perennial protocols` lists them")
      .require("out", out, "DIR", "where runs and results go; runs that are there are not repeated")
      .add_text("scenario", scenario, "NAME", "one of the protocol's; its first without it")
      .add_text("dataset", dataset, "NAME|DIR", "as of train")
      .add_text(
          "strategies", strategies, "NAMES",
          "rows of the protocol with commas between, or all; joint and naive come beside them")
      .add_switch("no-bounds", no_bounds, "only the rows named, without joint and naive")
      .add_switch(
          "tune", tune,
          "also choose optimizer, learning rate and schedule of each row, and what else the "
          "protocol names for it, on held-out training examples: a second table has each "
          "row at its own best")
      .add("seeds", seeds, "runs of each row, with seeds 1, 2, ...", Range{1, 1000})
      .add("jobs", options.jobs,
           "runs at a time, of one thread each; 0 = as cores and memory allow", Range{0, 256})
      .add("limit", limit, "training examples an experience at most, for a quick look; 0 = all",
           Range{0, 1e9})
      .add("test_limit", test_limit, "test examples an experience; 0 = all", Range{0, 1e9})
      .add_text("device", options.device, "NAME",
                "where runs compute, as of train: cpu, cuda, cuda:1, ..., or auto")
      .add_switch("keep-stores", options.keep_stores,
                  "keep what each run learnt, in its folder under OUT");
  common.add_to(flags);
  if (!flags.parse(rest)) return kExitOk;
  options.quiet = common.quiet;

  (void)choose_device(options.device);  // refused before any work

  const continual::Protocol protocol = continual::load_protocol(name, scenario, dataset);
  const std::vector<continual::ProtocolRow> rows = chosen_rows(protocol, strategies, !no_bounds);
  // What the data cannot give shows before any work; rows differ in strategy, not in data.
  const continual::RunConfig first = continual::with_limits(rows.front().config, limit, test_limit);
  (void)continual::Stream(first.stream);
  const std::int64_t judges = tune ? judges_of(first.stream) : 0;
  const Bench bench(out, rows, seeds, limit, test_limit, judges);
  // So does what is there and cannot be read.
  std::vector<ProtocolRun> plan = bench.plan(tune);
  for (const ProtocolRun& run : plan) (void)result_of(run);
  RunFailures failures;
  bool finished = true;
  const auto is_open = [&](const ProtocolRun& run) {
    return !failures.folders.contains(run.folder) && !is_done(run);
  };
  while (finished && std::any_of(plan.begin(), plan.end(), is_open)) {
    finished = run_all(plan, options, failures);
    plan = bench.plan(tune);
  }

  const BenchResults results = results_of(bench, tune);
  const Output output(common.json, common.quiet);
  // What was published was measured on all of the data.
  const bool whole = limit == 0 && test_limit == 0;
  const std::string published_for = whole ? fs::path(dataset).filename().string() : "";
  if (!results.rows.empty()) {
    output.text() << write_results(out, protocol, dataset, published_for, results);
  }
  for (const std::string& failure : failures.messages) {
    output.text() << "failed: " << failure << '\n';
  }
  if (!finished) output.text() << "stopped; the same command goes on\n";
  json::array rows_json;
  for (const continual::ResultRow& row : results.rows) {
    rows_json.push_back(row_json(row, protocol.find(row.strategy, published_for)));
  }
  json::object object{{"protocol", protocol.name},
                      {"dataset", dataset},
                      {"out", out},
                      {"finished", finished && failures.messages.empty()},
                      {"failures", json::value_from(failures.messages)},
                      {"rows", std::move(rows_json)}};
  if (tune) {
    json::array tuned_json;
    for (const TunedRow& row : results.tuned) tuned_json.push_back(row_json(row));
    object["tuned"] = std::move(tuned_json);
  }
  output.finish(object);
  return failures.messages.empty() ? kExitOk : kExitFailed;
}

int run_protocols(const std::vector<std::string>& args) {
  CommonOptions common;
  Flags flags("protocols", kProtocolsCommand.summary, "perennial protocols");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  const Output output(common.json, common.quiet);
  Table table({{"protocol", Align::left}, {"scenarios", Align::left}, {"rows"}, {"", Align::left}});
  json::array all;
  for (const std::string& name : continual::protocol_names()) {
    std::string scenarios;
    json::array list;
    for (const std::string& scenario : continual::protocol_scenarios(name)) {
      scenarios += (scenarios.empty() ? "" : ", ") + scenario;
      list.emplace_back(scenario);
    }
    const continual::Protocol protocol = continual::load_protocol(name, "", "fashion-mnist");
    table.add_row({name, scenarios, std::to_string(protocol.rows.size()), protocol.title});
    json::array rows;
    for (const continual::ProtocolRow& row : protocol.rows) rows.emplace_back(row.name);
    all.push_back(json::object{{"name", name},
                               {"title", protocol.title},
                               {"source", protocol.source},
                               {"deviates", protocol.deviates},
                               {"scenarios", std::move(list)},
                               {"rows", std::move(rows)}});
  }
  table.print(output.text());
  output.finish({{"protocols", std::move(all)}});
  return kExitOk;
}

}  // namespace

const Command kBenchCommand{"bench", CommandGroup::learn_and_use,
                            "run a protocol's strategies over seeds, beside published results",
                            run_bench};
const Command kProtocolsCommand{"protocols", CommandGroup::information,
                                "list the protocols of `bench continual`", run_protocols};

}  // namespace perennial::cli
