// SPDX-License-Identifier: Apache-2.0
// perennial log: the commits of a store.
#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "run_support.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::size_t kDigestDigits = 12;
constexpr std::size_t kNoteColumns = 40;

// A commit of a run as people look at it.
struct Row {
  std::string generations, metric, score, what;
};

// A run's notes have fields to resume from, which the notes of commits by hand carry along; of
// those only what happened counts here. Other notes are shown as they are.
Row row_of(const boost::json::object& commit) {
  const boost::json::value& note = commit.at("note");
  if (!note.is_object()) {
    Row row;
    row.what = std::string(std::string_view(note.get_string()));
    return row;
  }
  const boost::json::object& fields = note.get_object();
  const auto text = [&](std::string_view name) -> std::string {
    const boost::json::value* value = fields.if_contains(name);
    return value == nullptr ? "" : boost::json::serialize(*value);
  };
  Row row;
  row.generations = text("generations");
  for (const auto& [task, name] : enum_names(continual::TaskKind{})) {
    const char* metric = continual::score_names(task).metric;
    const auto* score = fields.if_contains(metric);
    if (score == nullptr || !score->is_double()) continue;
    row.metric = metric;
    row.score = format_metric(score->get_double());
  }
  const boost::json::value* action = fields.if_contains("action");
  if (!fields.contains("events_bytes") || action == nullptr || !action->is_string()) {
    row.what = note_text(boost::json::serialize(note));
    return row;
  }
  row.what = std::string(std::string_view(action->get_string()));
  if (row.what == "experience") row.what += ' ' + text("experience");
  if (row.what == "progress" || row.what == "stopped") row.what += " at step " + text("steps");
  if (fields.contains("from")) row.what += " from " + text("from");
  return row;
}

void print_commits(std::ostream& out, const std::vector<storage::CommitInfo>& commits) {
  std::vector<Row> rows;
  for (const storage::CommitInfo& info : commits) rows.push_back(row_of(commit_json(info)));
  std::string metric = continual::score_names(continual::TaskKind{}).metric;
  for (const Row& row : rows) metric = row.metric.empty() ? metric : row.metric;
  const bool of_run = std::any_of(rows.begin(), rows.end(), [](const Row& row) {
    return !row.generations.empty() || !row.score.empty();
  });
  std::vector<Table::Column> columns = {
      {"commit"}, {"snapshot", Align::left}, {"time", Align::left}, {"pages"}, {"added"}, {"live"}};
  if (of_run) columns.insert(columns.end(), {{"generations"}, {metric}});
  columns.insert(columns.end(), {{"state digest", Align::left}, {"what", Align::left}});
  Table table(columns);
  for (std::size_t i = 0; i < commits.size(); ++i) {
    const storage::CommitInfo& info = commits[i];
    std::vector<std::string> cells = {
        std::to_string(info.commit),   info.snapshot,
        format_time(info.unix_ms),     format_count(static_cast<std::int64_t>(info.pages_written)),
        format_bytes(info.file_bytes), format_bytes(info.live_bytes)};
    if (of_run) cells.insert(cells.end(), {rows[i].generations, rows[i].score});
    cells.insert(cells.end(), {info.state_digest.hex().substr(0, kDigestDigits),
                               one_line(rows[i].what, kNoteColumns)});
    table.add_row(std::move(cells));
  }
  table.print(out);
}

int run_log(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t last = 0;
  CommonOptions common;
  Flags flags("log", kLogCommand.summary, "perennial log --store runs/first --last 10");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add("last", last, "only the newest N commits, 0 = all", Range{0, 1e9});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder);
  std::vector<storage::CommitInfo> commits = store->log();
  const std::uint64_t size = value_or_throw(store->size_bytes());
  const std::size_t all = commits.size();
  if (last > 0 && std::cmp_less(last, commits.size())) {
    commits.erase(commits.begin(), commits.end() - last);
  }

  const Output output(common.json, common.quiet);
  if (commits.empty()) {
    output.text() << folder << " holds no commit yet\n";
  } else {
    print_commits(output.text(), commits);
    output.text() << format_number_of(all, "commit") << ", " << format_bytes(size)
                  << " on disk; of what a commit added the current state uses what is live\n";
  }
  boost::json::array rows;
  for (const storage::CommitInfo& info : commits) rows.push_back(commit_json(info));
  output.finish({{"store", folder}, {"store_bytes", size}, {"commits", std::move(rows)}});
  return kExitOk;
}

}  // namespace

const Command kLogCommand{"log", CommandGroup::history,
                          "list the commits of a store, and what each adds and keeps", run_log};

}  // namespace perennial::cli
