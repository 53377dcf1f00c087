// SPDX-License-Identifier: Apache-2.0
// perennial bench continual: the rows of a protocol over several seeds, each run in a process of
// its own; a table beside what was published.
#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_from.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <ostream>
#include <string_view>
#include <thread>

#include "child_processes.h"
#include "commands/commands.h"
#include "device.h"
#include "flags.h"
#include "interrupt.h"
#include "output.h"
#include "perennial/continual/protocol.h"
#include "perennial/continual/report.h"
#include "perennial/continual/run_folder.h"
#include "perennial/continual/statistics.h"
#include "perennial/continual/tables.h"
#include "progress.h"
#include "run_support.h"

namespace perennial::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// A run of a protocol's row takes about so much memory beside its data.
constexpr std::int64_t kBytesOfRun = std::int64_t{3} << 29;

struct Run {
  std::string row;
  std::int64_t seed = 0;
  continual::RunConfig config;
  fs::path folder;  // OUT/runs/ROW/SEED
};

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

// True when the folder holds a finished run of this configuration. Throws InvalidOptions for
// another configuration.
bool is_done(const Run& run) {
  const fs::path file = run.folder / "config.json";
  if (!fs::exists(file)) return false;
  const auto stored = read_config(file);
  std::vector<std::string> differing = continual::differences(stored, run.config);
  const std::string here = continual::data_location(run.config.stream.dataset);
  if (continual::data_location(stored.stream.dataset) != here) {
    differing.push_back("stream.dataset: " + stored.stream.dataset + " stored, " + here +
                        " asked for");
  }
  if (!differing.empty()) {
    throw InvalidOptions(run.folder.string() + " holds a run with other settings: " +
                         differing.front() + "; use another folder for --out");
  }
  return fs::exists(run.folder / "summary.json");
}

// What a finished run recorded; empty for one that is not. Throws DataError for a record that
// cannot be read.
std::optional<continual::RunFolder> result_of(const Run& run) {
  if (!is_done(run)) return std::nullopt;
  try {
    return continual::read_run_folder(run.folder);
  } catch (const DataError& error) {
    throw DataError(std::string(error.what()) + "; delete " + run.folder.string() +
                    " to run it again");
  }
}

// What a finished child left goes from its store's run folder to the run's own.
void keep_record(const Run& run, bool keep_store) {
  const fs::path store = run.folder / "store";
  const fs::path record = store / "runs" / run.config.train.strategy.text();
  // summary.json last: it says that the run is done.
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(record)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) {
    return (a.filename() == "summary.json") < (b.filename() == "summary.json");
  });
  for (const fs::path& file : files) {
    const fs::path kept = run.folder / file.filename(), next = kept.string() + ".next";
    fs::copy_file(file, next, fs::copy_options::overwrite_existing);
    fs::rename(next, kept);
  }
  if (!keep_store) fs::remove_all(store);
}

std::int64_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  std::int64_t kilobytes = 0;
  while (file >> word) {
    if (word == "MemAvailable:" && file >> kilobytes) break;
  }
  return kilobytes * 1024;
}

std::size_t jobs_of(std::int64_t asked) {
  if (asked > 0) return static_cast<std::size_t>(asked);
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  return static_cast<std::size_t>(
      std::max<std::int64_t>(1, std::min(cores, available_bytes() / kBytesOfRun)));
}

// Runs what is not done yet. False when that was stopped.
bool run_all(const std::vector<Run>& runs, std::size_t jobs, bool keep_stores,
             const std::string& device, const CommonOptions& common,
             std::vector<std::string>& failures) {
  std::vector<const Run*> open;
  std::vector<ChildTask> tasks;
  for (const Run& run : runs) {
    if (is_done(run)) continue;
    fs::create_directories(run.folder);
    continual::replace_file(run.folder / "config.json", json::serialize(run.config.to_json()));
    open.push_back(&run);
    tasks.push_back(
        {{"train", "--store", (run.folder / "store").string(), "--config",
          (run.folder / "config.json").string(), "--threads", "1", "--device", device, "--quiet"},
         run.folder / "log.txt"});
  }
  ProgressDisplay display(common.quiet);
  const InterruptGuard guard;
  std::int64_t done = std::ssize(runs) - std::ssize(tasks);
  run_children(
      tasks, jobs,
      [&](std::size_t task, int code) {
        ++done;
        const Run& run = *open[task];
        // A run that was stopped has no summary yet.
        const fs::path summary =
            run.folder / "store" / "runs" / run.config.train.strategy.text() / "summary.json";
        if (code == kExitOk && fs::exists(summary) &&
            json::parse(read_text(summary)).at("finished").as_bool()) {
          keep_record(run, keep_stores);
        } else if (!InterruptGuard::interrupted()) {
          std::string message = run.row + ", seed " + std::to_string(run.seed);
          message.append(": ended with code ").append(std::to_string(code));
          message.append("; see ").append((run.folder / "log.txt").string());
          failures.push_back(message);
        }
      },
      [&](const std::vector<std::size_t>& running) {
        std::string names;
        for (const std::size_t task : running) {
          names += (names.empty() ? "" : ", ") + open[task]->row + " " +
                   std::to_string(open[task]->seed);
        }
        display.update({"runs", done, std::ssize(runs), "runs", names});
      },
      [] { return InterruptGuard::interrupted(); });
  return !InterruptGuard::interrupted();
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", 100 * share);
  return text;
}

std::string percent_sd(const std::vector<double>* values) {
  if (values == nullptr || values->empty()) return "-";
  const continual::SeedStatistics s = continual::statistics_of(*values);
  return s.sd ? percent(s.mean) + " ± " + percent(*s.sd) : percent(s.mean);
}

// The table of a protocol, in percent: Markdown, for people and for documents. Without a data set
// nothing is set beside it.
std::string table_of(const continual::Protocol& protocol, const std::string& dataset,
                     const std::vector<continual::ResultRow>& rows) {
  std::string text =
      "| strategy | acc | bwt.gem | forgetting.chaudhry | seconds | seeds | published | difference "
      "|\n|---|---:|---:|---:|---:|---:|---:|---:|\n";
  for (const continual::ResultRow& row : rows) {
    const std::vector<double>* acc = row.find("acc");
    const std::vector<double>* seconds = row.find("seconds");
    text += "| " + row.strategy + " | " + percent_sd(acc) + " | " +
            percent_sd(row.find("bwt.gem")) + " | " + percent_sd(row.find("forgetting.chaudhry"));
    char cell[48];
    const double mean_seconds = seconds == nullptr ? 0 : continual::statistics_of(*seconds).mean;
    std::snprintf(cell, sizeof cell, " | %.1f | %zu | ", mean_seconds,
                  acc == nullptr ? std::size_t{0} : acc->size());
    text += cell;
    const continual::PublishedResult* published = protocol.find(row.strategy, dataset);
    if (published == nullptr) {
      text += "- | - |\n";
      continue;
    }
    text += percent(published->acc);
    if (published->spread) text += " ± " + percent(*published->spread);
    const double mean = acc == nullptr ? 0 : continual::statistics_of(*acc).mean;
    std::snprintf(cell, sizeof cell, " | %+.2f |\n", 100 * (mean - published->acc));
    text += cell;
  }
  return text;
}

json::object row_json(const continual::ResultRow& row,
                      const continual::PublishedResult* published) {
  json::object object{{"strategy", row.strategy}};
  for (const auto& [metric, values] : row.metrics) {
    const continual::SeedStatistics s = continual::statistics_of(values);
    object[metric] = s.mean;
    object[metric + ".sd"] = s.sd ? json::value(*s.sd) : json::value(nullptr);
    if (metric == "acc") object["seeds"] = s.n;
  }
  if (published != nullptr) {
    object["published"] = {{"acc", published->acc}, {"source", published->source}};
  }
  return object;
}

int run_bench(const std::vector<std::string>& args) {
  std::vector<std::string> rest = args;
  const bool help = !rest.empty() && (rest.front() == "--help" || rest.front() == "-h");
  if (!help && (rest.empty() || rest.front() != "continual")) {
    throw InvalidOptions(
        "bench needs to be told of what: perennial bench continual --protocol NAME");
  }
  if (!help) rest.erase(rest.begin());
  std::string name, scenario, dataset = "fashion-mnist", strategies = "all", out, device = "cpu";
  std::int64_t seeds = 3, jobs = 0, limit = 0, test_limit = 0;
  bool keep_stores = false, no_bounds = false;
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
      .add("seeds", seeds, "runs of each row, with seeds 1, 2, ...", Range{1, 1000})
      .add("jobs", jobs, "runs at a time, of one thread each; 0 = as cores and memory allow",
           Range{0, 256})
      .add("limit", limit, "training examples an experience at most, for a quick look; 0 = all",
           Range{0, 1e9})
      .add("test_limit", test_limit, "test examples an experience; 0 = all", Range{0, 1e9})
      .add_text("device", device, "NAME",
                "where runs compute, as of train: cpu, cuda, cuda:1, ..., or auto")
      .add_switch("keep-stores", keep_stores, "keep what each run learnt, in OUT/runs/.../store");
  common.add_to(flags);
  if (!flags.parse(rest)) return kExitOk;

  (void)choose_device(device);  // refused before any work

  const continual::Protocol protocol = continual::load_protocol(name, scenario, dataset);
  const std::vector<continual::ProtocolRow> rows = chosen_rows(protocol, strategies, !no_bounds);
  std::vector<Run> runs;
  for (const continual::ProtocolRow& row : rows) {
    for (std::int64_t seed = 1; seed <= seeds; ++seed) {
      const auto config =
          continual::with_limits(continual::with_seed(row.config, seed), limit, test_limit);
      runs.push_back(
          {row.name, seed, config, fs::path(out) / "runs" / row.name / std::to_string(seed)});
    }
  }
  // What is there and cannot be read shows before any work.
  for (const Run& run : runs) (void)result_of(run);
  // What the data cannot give shows before any work; rows differ in strategy, not in data.
  (void)continual::Stream(continual::with_limits(rows.front().config, limit, test_limit).stream);
  std::vector<std::string> failures;
  const bool finished = run_all(runs, jobs_of(jobs), keep_stores, device, common, failures);

  std::vector<continual::RunFolder> folders;
  std::vector<continual::ResultRow> results;
  for (const Run& run : runs) {
    std::optional<continual::RunFolder> result = result_of(run);
    if (!result) continue;
    folders.push_back(*std::move(result));
    if (results.empty() || results.back().strategy != run.row) {
      results.push_back({run.row, {}});
    }
    json::object metrics = folders.back().metrics();
    double seconds = 0;
    for (const continual::ExperienceFigures& experience : folders.back().experiences) {
      seconds += experience.seconds.value_or(0);
    }
    metrics["seconds"] = seconds;
    results.back().add_run(metrics);
  }
  const Output output(common.json, common.quiet);
  // What was published was measured on all of the data.
  const bool whole = limit == 0 && test_limit == 0;
  const std::string data_name = whole ? fs::path(dataset).filename().string() : "";
  json::array rows_json;
  for (const continual::ResultRow& row : results) {
    rows_json.push_back(row_json(row, protocol.find(row.strategy, data_name)));
  }
  if (!results.empty()) {
    const std::string table = table_of(protocol, data_name, results);
    std::string heading = "# " + protocol.title + "\n\n" + dataset + ", in percent\n\n";
    if (!protocol.deviates.empty()) heading += "Deviates: " + protocol.deviates + ".\n\n";
    continual::replace_file(fs::path(out) / "results.md", heading + table);
    continual::replace_file(fs::path(out) / "results.csv", continual::csv_table(results));
    continual::replace_file(fs::path(out) / "report.html", continual::report_html(folders));
    output.text() << protocol.title << ", " << dataset << ", in percent\n";
    if (!protocol.deviates.empty()) output.text() << "deviates: " << protocol.deviates << '\n';
    output.text() << '\n' << table << '\n';
    output.text() << "written: " << (fs::path(out) / "results.md").string() << ", results.csv, "
                  << "report.html\n";
  }
  for (const std::string& failure : failures) output.text() << "failed: " << failure << '\n';
  if (!finished) output.text() << "stopped; the same command goes on\n";
  output.finish({{"protocol", protocol.name},
                 {"dataset", dataset},
                 {"out", out},
                 {"finished", finished && failures.empty()},
                 {"failures", json::value_from(failures)},
                 {"rows", std::move(rows_json)}});
  return failures.empty() ? kExitOk : kExitFailed;
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
