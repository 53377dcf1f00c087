// SPDX-License-Identifier: Apache-2.0
// perennial report: one page about a run, or about several side by side.
#include "perennial/continual/report.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <filesystem>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/statistics.h"

namespace perennial::cli {
namespace {

namespace fs = std::filesystem;

// Folders this far below a given one are looked at: DIR/runs/NAME, DIR/STRATEGY/SEED/runs/NAME.
constexpr int kDepth = 4;

bool is_run_folder(const fs::path& folder) {
  return fs::exists(folder / "events.jsonl") || fs::exists(folder / "summary.json");
}

void find_runs(const fs::path& folder, int depth, std::vector<fs::path>& found) {
  if (is_run_folder(folder)) {
    found.push_back(folder);
    return;
  }
  if (depth == 0) return;
  std::vector<fs::path> inner;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) inner.push_back(entry.path());
  }
  std::sort(inner.begin(), inner.end());
  for (const fs::path& next : inner) find_runs(next, depth - 1, found);
}

// "--runs A B C" as one value of lines, which Flags takes.
std::vector<std::string> with_joined_runs(const std::vector<std::string>& args) {
  std::vector<std::string> joined;
  for (std::size_t i = 0; i < args.size(); ++i) {
    joined.push_back(args[i]);
    if (args[i] != "--runs") continue;
    std::string folders;
    while (i + 1 < args.size() && !args[i + 1].starts_with("--")) {
      folders += (folders.empty() ? "" : "\n") + args[++i];
    }
    if (!folders.empty()) joined.push_back(folders);
  }
  return joined;
}

std::vector<continual::RunFolder> read_runs(const std::string& folders) {
  std::vector<continual::RunFolder> runs;
  for (std::size_t begin = 0; begin <= folders.size();) {
    const std::size_t end = std::min(folders.find('\n', begin), folders.size());
    const fs::path folder = folders.substr(begin, end - begin);
    begin = end + 1;
    if (!fs::is_directory(folder)) throw DataError(folder.string() + " is no folder");
    std::vector<fs::path> found;
    find_runs(folder, kDepth, found);
    if (found.empty()) {
      throw DataError(folder.string() + " holds no run: there is no events.jsonl in or below it");
    }
    for (const fs::path& run : found) runs.push_back(continual::read_run_folder(run));
  }
  return runs;
}

int run_report(const std::vector<std::string>& args) {
  std::string folders, out, csv;
  CommonOptions common;
  Flags flags("report", kReportCommand.summary,
              "perennial report --runs naive-1/ naive-2/ grown-1/ --out report.html");
  flags.require("runs", folders, "DIR...",
                "run folders, or folders that have some below them, as a store has in runs/");
  flags.require("out", out, "FILE", "the page, one HTML file that needs nothing else");
  flags.add_text("csv", csv, "FILE",
                 "also strategy,metric,mean,sd,sem,t95,seeds; t95 is half of the 95% interval");
  common.add_to(flags);
  if (!flags.parse(with_joined_runs(args))) return kExitOk;

  const std::vector<continual::RunFolder> runs = read_runs(folders);
  continual::replace_file(out, continual::report_html(runs));
  const std::vector<continual::ResultRow> rows = continual::result_rows(runs);
  if (!csv.empty()) continual::replace_file(csv, continual::csv_table(rows));

  const Output output(common.json, common.quiet);
  std::vector<std::string> metrics;
  for (const auto& [task, name] : enum_names(continual::TaskKind{})) {
    const auto of_task = [&, kind = task](const auto& run) { return run.task == kind; };
    if (std::any_of(runs.begin(), runs.end(), of_task)) {
      metrics.emplace_back(continual::score_names(task).metric);
    }
  }
  metrics.insert(metrics.end(), {"bwt.gem", "forgetting.chaudhry", "seconds"});
  output.text() << continual::markdown_table(rows, metrics) << "\nreport of "
                << format_number_of(runs.size(), "run") << " in " << out << '\n';
  boost::json::array lines;
  for (const continual::ResultRow& row : rows) {
    boost::json::object line{{"strategy", row.strategy}};
    std::size_t seeds = 0;
    for (const auto& [metric, values] : row.metrics) {
      line[metric] = continual::statistics_of(values).to_json();
      seeds = std::max(seeds, values.size());
    }
    line["seeds"] = seeds;
    lines.push_back(std::move(line));
  }
  output.finish({{"out", out}, {"runs", runs.size()}, {"rows", std::move(lines)}});
  return kExitOk;
}

}  // namespace

const Command kReportCommand{"report", CommandGroup::information,
                             "make a page about runs, with figures and statistics over seeds",
                             run_report};

}  // namespace perennial::cli
