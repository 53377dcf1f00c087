// SPDX-License-Identifier: Apache-2.0
// Runs as child processes, and what they leave.
#include "protocol_runs.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fstream>
#include <thread>

#include "child_processes.h"
#include "command.h"
#include "interrupt.h"
#include "perennial/continual/report.h"
#include "progress.h"
#include "run_support.h"

namespace perennial::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// A run of a protocol's row takes about so much memory beside its data.
constexpr std::int64_t kBytesOfRun = std::int64_t{3} << 29;

// Where a child writes its record while it runs.
fs::path record_of(const ProtocolRun& run) {
  return run.folder / "store" / "runs" / run.config.train.strategy.text();
}

// What a finished child left goes from its store's run folder to the run's own.
void keep_record(const ProtocolRun& run, bool keep_store) {
  // summary.json last: it says that the run is done.
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(record_of(run))) {
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
  if (!keep_store) fs::remove_all(run.folder / "store");
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

}  // namespace

bool is_done(const ProtocolRun& run) {
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

std::optional<continual::RunFolder> result_of(const ProtocolRun& run) {
  if (!is_done(run)) return std::nullopt;
  try {
    return continual::read_run_folder(run.folder);
  } catch (const DataError& error) {
    throw DataError(std::string(error.what()) + "; delete " + run.folder.string() +
                    " to run it again");
  }
}

bool run_all(const std::vector<ProtocolRun>& runs, const RunProtocolOptions& options,
             RunFailures& failures) {
  std::vector<const ProtocolRun*> open;
  std::vector<ChildTask> tasks;
  for (const ProtocolRun& run : runs) {
    if (failures.folders.contains(run.folder) || is_done(run)) continue;
    fs::create_directories(run.folder);
    continual::replace_file(run.folder / "config.json", json::serialize(run.config.to_json()));
    open.push_back(&run);
    tasks.push_back({{"train", "--store", (run.folder / "store").string(), "--config",
                      (run.folder / "config.json").string(), "--threads", "1", "--device",
                      options.device, "--quiet"},
                     run.folder / "log.txt"});
  }
  ProgressDisplay display(options.quiet);
  const InterruptGuard guard;
  std::int64_t done = std::ssize(runs) - std::ssize(tasks);
  run_children(
      tasks, jobs_of(options.jobs),
      [&](std::size_t task, int code) {
        ++done;
        const ProtocolRun& run = *open[task];
        // A run that was stopped has no summary yet.
        const fs::path summary = record_of(run) / "summary.json";
        if (code == kExitOk && fs::exists(summary) &&
            json::parse(read_text(summary)).at("finished").as_bool()) {
          keep_record(run, options.keep_stores);
        } else if (!InterruptGuard::interrupted()) {
          std::string message = run.name;
          message.append(": ended with code ").append(std::to_string(code));
          message.append("; see ").append((run.folder / "log.txt").string());
          failures.messages.push_back(message);
          failures.folders.insert(run.folder);
        }
      },
      [&](const std::vector<std::size_t>& running) {
        std::string names;
        for (const std::size_t task : running) {
          names += (names.empty() ? "" : "; ") + open[task]->name;
        }
        display.update({"runs", done, std::ssize(runs), "runs", names});
      },
      [] { return InterruptGuard::interrupted(); });
  return !InterruptGuard::interrupted();
}

}  // namespace perennial::cli
