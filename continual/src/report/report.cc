// SPDX-License-Identifier: Apache-2.0
// Puts the page together.
#include "perennial/continual/report.h"

#include <fstream>
#include <set>

#include "perennial/core/error.h"
#include "report/figures.h"
#include "report/groups.h"
#include "report/html.h"
#include "report/style.h"

namespace perennial::continual {

namespace fs = std::filesystem;
using namespace report;

namespace {

struct Metric {
  const char* name;
  const char* meaning;
};
constexpr Metric kMetrics[] = {
    {"acc", "mean accuracy on all test sets at the end"},
    {"r2", "mean R squared on all test sets at the end"},
    {"bwt.gem", "backward transfer: at the end minus just after learning it (Lopez-Paz & Ranzato)"},
    {"fwt.gem", "forward transfer: just before learning it minus untrained (Lopez-Paz & Ranzato)"},
    {"bwt.diaz", "backward transfer over all steps (Díaz-Rodríguez)"},
    {"forgetting.chaudhry", "best score before the end minus at the end (Chaudhry)"},
    {"forgetting.first_last", "just after learning it minus at the end"},
    {"intransigence",
     "score of one joint model of all experiences minus just after learning it (after Chaudhry, "
     "whose model for experience k is of the first k)"},
    {"avg_incremental", "mean over experiences of the mean score on those seen (iCaRL)"},
    {"anytime", "mean over steps of the mean score on experiences seen (Caccia)"},
    {"lca", "learning-curve area over the first minibatches (Chaudhry)"},
    {"min_acc", "worst accuracy since an experience ended, mean (De Lange)"},
    {"wc_acc", "worst-case accuracy (De Lange)"},
    {"min_r2", "worst R squared since an experience ended, mean (De Lange)"},
    {"wc_r2", "worst-case R squared (De Lange)"},
    {"gate_accuracy", "share of test inputs given to their own generation"},
};

// The metrics that any group has.
std::vector<Metric> present(const std::vector<Group>& groups) {
  std::vector<Metric> all;
  for (const Metric& metric : kMetrics) {
    for (const Group& group : groups) {
      if (!statistic(group, metric.name, groups)) continue;
      all.push_back(metric);
      break;
    }
  }
  return all;
}

std::string seeds_text(const Group& group) {
  const std::size_t n = group.runs.size();
  return n == 1 ? "1 run" : std::to_string(n) + " runs";
}

std::string cell(const std::optional<double>& value) {
  std::string text = "<td>";
  text += value ? fixed(*value, 4) : "-";
  return cat({text, "</td>"});
}

// One strategy: a line a metric.
std::string metrics_of_one(const std::vector<Group>& groups) {
  const Group& group = groups.front();
  const bool several = group.runs.size() > 1;
  std::string html = "<div class=\"table\"><table><thead><tr><th>metric</th><th>";
  html += several ? "mean</th><th>sd</th><th>sem</th><th>± t95" : "value";
  html += "</th><th class=\"meaning\">meaning</th></tr></thead><tbody>";
  for (const Metric& metric : present(groups)) {
    const SeedStatistics s = *statistic(group, metric.name, groups);
    html += cat({"<tr><td>", escaped(metric.name), "</td>", cell(s.mean)});
    if (several) html += cell(s.sd) + cell(s.sem) + cell(s.t95);
    html += cat({"<td class=\"meaning soft\">", escaped(metric.meaning), "</td></tr>"});
  }
  return cat({html, "</tbody></table></div>"});
}

// Tables with more columns do not fit a page.
constexpr std::size_t kTableColumns = 6;

std::string mean_sd_cell(const Group& group, const Metric& metric,
                         const std::vector<Group>& groups) {
  const std::optional<SeedStatistics> s = statistic(group, metric.name, groups);
  return cat({"<td>", s ? escaped(format_mean_sd(*s)) : std::string("-"), "</td>"});
}

// Several: mean and sd, a column a strategy, or a line a strategy where there are many.
std::string metrics_of_many(const std::vector<Group>& groups) {
  const std::vector<Metric> metrics = present(groups);
  const bool columns = groups.size() <= kTableColumns;
  std::string html = "<div class=\"table\"><table><thead><tr><th>";
  html += columns ? "metric" : "strategy";
  html += "</th>";
  std::string body;
  if (columns) {
    body = "<tr><td>seeds</td>";
    for (const Group& group : groups) {
      html += cat({"<th>", escaped(group.name), "</th>"});
      body += cat({"<td>", std::to_string(group.runs.size()), "</td>"});
    }
    body += "</tr>";
    for (const Metric& metric : metrics) {
      body += cat({"<tr title=\"", escaped(metric.meaning), "\"><td>", metric.name, "</td>"});
      for (const Group& group : groups) body += mean_sd_cell(group, metric, groups);
      body += "</tr>";
    }
  } else {
    html += "<th>seeds</th>";
    for (const Metric& metric : metrics) {
      html += cat({"<th title=\"", escaped(metric.meaning), "\">", metric.name, "</th>"});
    }
    for (const Group& group : groups) {
      body += cat({"<tr><td>", escaped(group.name), "</td><td>", std::to_string(group.runs.size()),
                   "</td>"});
      for (const Metric& metric : metrics) body += mean_sd_cell(group, metric, groups);
      body += "</tr>";
    }
  }
  html += cat({"</tr></thead><tbody>", body, "</tbody></table></div>"});
  return html + "<p class=\"soft\">Mean ± standard deviation over seeds.</p>";
}

std::string tiles(const Group& group, const std::vector<Group>& groups) {
  std::string html = "<div class=\"tiles\">";
  const auto tile = [&](const std::string& value, const std::string& name) {
    html += cat(
        {"<div class=\"tile\"><b>", escaped(value), "</b><span>", escaped(name), "</span></div>"});
  };
  for (const char* name : {score_names(group.first().task).metric, "bwt.gem", "fwt.gem",
                           "forgetting.chaudhry", "anytime", "gate_accuracy"}) {
    if (const auto s = statistic(group, name, groups)) tile(fixed(s->mean, 4), name);
  }
  double seconds = 0;
  for (const ExperienceFigures& figures : group.first().experiences) {
    seconds += figures.seconds.value_or(0);
  }
  if (seconds > 0) tile(plain(seconds) + " s", "training, without evaluations");
  return cat({html, "</div>"});
}

// What all groups have in common of their streams.
std::string description(const std::vector<Group>& groups, std::size_t runs) {
  const RunFolder& run = groups.front().first();
  std::set<std::string> of_data, differing;
  for (const auto& [field, values] : differing_settings(groups)) {
    differing.insert(field);
    if (field == "stream.dataset") of_data.insert(values.begin(), values.end());
  }
  for (const Group& group : groups) {
    if (group.experiences() != groups.front().experiences()) differing.insert("stream.experiences");
  }
  std::string text;
  const std::string stream = run.setting("stream", "stream");
  if (!stream.empty()) {
    text = differing.contains("stream.stream") ? std::string("Several streams")
                                               : cat({"Stream ", stream});
    if (of_data.empty()) {
      text += cat({" of ", datasets_of(run)});
    } else {
      text += cat({" of ", std::to_string(of_data.size()), " data sets"});
    }
    if (!differing.contains("stream.experiences")) {
      text += cat({", ", std::to_string(run.matrix.experiences()), " experiences"});
      const std::string limit = run.setting("stream", "limit");
      if (!limit.empty() && limit != "0" && !differing.contains("stream.limit")) {
        text += cat({" of ", limit, " training examples"});
      }
    }
    text += ". ";
  }
  text += runs == 1 ? "One run" : std::to_string(runs) + " runs";
  text += groups.size() == 1
              ? cat({" of strategy ", groups.front().name})
              : cat({" of ", std::to_string(groups.size()), " strategies or settings"});
  return cat({text, "."});
}

// What all groups have in common; seeds are those of each run and stand with it.
std::string common_settings(const std::vector<Group>& groups) {
  std::string html;
  const auto differing = differing_settings(groups);
  const RunFolder& run = groups.front().first();
  for (const auto& section : run.config) {
    if (!section.value().is_object()) continue;
    html += cat({"<h3>", escaped(section.key()), "</h3><dl>"});
    for (const auto& field : section.value().get_object()) {
      const std::string name = cat({std::string(section.key()), ".", std::string(field.key())});
      bool differs = is_seed(field.key());
      for (const auto& row : differing) differs = differs || row.first == name;
      if (differs) continue;
      html += cat({"<div><dt>", escaped(field.key()), "</dt><dd>",
                   escaped(run.setting(section.key(), field.key())), "</dd></div>"});
    }
    html += "</dl>";
  }
  return html;
}

std::string settings(const std::vector<Group>& groups) {
  if (groups.front().first().config.empty()) return "";
  std::string html = "<section id=\"settings\"><h2>Settings</h2>";
  const auto differing = differing_settings(groups);
  if (!differing.empty()) {
    html += "<p>What differs:</p><div class=\"table\"><table><thead><tr><th>setting</th>";
    for (const Group& group : groups) html += cat({"<th>", escaped(group.name), "</th>"});
    html += "</tr></thead><tbody>";
    for (const auto& [field, values] : differing) {
      html += cat({"<tr><td>", escaped(field), "</td>"});
      for (const std::string& value : values) html += cat({"<td>", escaped(value), "</td>"});
      html += "</tr>";
    }
    html += "</tbody></table></div><p>Common to all:</p>";
  }
  return cat({html, common_settings(groups), "</section>"});
}

std::string reproduce(const std::vector<Group>& groups) {
  std::string html = "<section id=\"reproduce\"><h2>Runs and how to repeat them</h2>";
  for (const Group& group : groups) {
    for (const RunFolder* run : group.runs) {
      html += cat({"<p><b>", escaped(group.name), "</b> <span class=\"soft\">",
                   escaped(run->folder.string()), (run->finished ? "" : ", not finished"), ", ",
                   plain(static_cast<double>(run->steps)), " steps"});
      if (!run->state_digest.empty()) html += cat({", state digest ", escaped(run->state_digest)});
      html += "</span></p>";
      if (!run->config.empty())
        html += cat({"<pre>", escaped(reproducing_command(*run)), "</pre>"});
    }
  }
  html +=
      "<p class=\"soft\">DIR is a new folder. The same command has the same bits on the same "
      "number of threads and kind of processor.</p></section>";
  return html;
}

std::string table_section(const TextTable& table) {
  std::string html =
      cat({"<section class=\"result-table\"><h2>", escaped(table.title),
           "</h2><div class=\"table\">", html_table(table.columns, table.rows), "</div>"});
  for (const std::string& note : table.notes) {
    html += cat({"<p class=\"soft\">", escaped(note), "</p>"});
  }
  return cat({html, "</section>\n"});
}

std::string section(const char* id, const std::string& title, const std::string& figures) {
  if (figures.empty()) return "";
  return cat({std::string("<section id=\""), id, "\"><h2>", title, "</h2><div class=\"figures\">\n",
              figures, "</div></section>\n"});
}

}  // namespace

std::string report_html(const std::vector<RunFolder>& runs, const std::vector<TextTable>& tables) {
  if (runs.empty()) throw InvalidOptions("a report needs at least one run");
  std::size_t repeated = 0;
  const std::vector<Group> groups = group_runs(runs, repeated);
  const bool many = groups.size() > 1;
  const std::string title =
      many ? cat({"Comparison of ", std::to_string(groups.size()), " strategies or settings"})
           : cat({"Strategy ", groups.front().name, ", ", seeds_text(groups.front())});
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n<title>" +
      escaped(title) + " - perennial</title>\n<style>" + kStyle + "</style></head>\n<body><main>\n";
  html += cat({"<header><h1>", escaped(title), "</h1><p class=\"soft\">",
               escaped(description(groups, runs.size() - repeated)), "</p>"});
  if (repeated > 0) {
    html += cat({"<p class=\"soft\">", std::to_string(repeated),
                 " more run folders repeat configuration and seeds of these and are not counted "
                 "again.</p>"});
  }
  for (const RunFolder& run : runs) {
    if (run.finished) continue;
    html += "<p>A run has not finished: metrics that need its last experience are missing.</p>";
    break;
  }
  html += "</header>\n";
  for (const TextTable& table : tables) html += table_section(table);
  if (many) {
    html += section("comparison", "Strategies compared", comparison_figures(groups));
    html +=
        cat({"<section id=\"metrics\"><h2>Metrics</h2>", metrics_of_many(groups), "</section>\n"});
  } else {
    html += tiles(groups.front(), groups);
  }
  html += section("matrix", titled(groups, ""), matrix_figures(groups));
  html += section("learning", "While learning", learning_figures(groups));
  html += section("routing", "Routing", routing_figures(groups));
  html += section("cost", "Growth, memory and time", cost_figures(groups));
  if (!many) {
    html +=
        cat({"<section id=\"metrics\"><h2>Metrics</h2>", metrics_of_one(groups), "</section>\n"});
  }
  html += cat({settings(groups), "\n", reproduce(groups)});
  return cat({html, "</main></body></html>\n"});
}

std::vector<ResultRow> result_rows(const std::vector<RunFolder>& runs) {
  std::size_t repeated = 0;
  const std::vector<Group> groups = group_runs(runs, repeated);
  std::vector<ResultRow> rows;
  for (const Group& group : groups) {
    ResultRow row{group.name, {}};
    for (const RunFolder* run : group.runs) {
      boost::json::object metrics = run->metrics();
      double seconds = 0;
      for (const ExperienceFigures& figures : run->experiences) {
        seconds += figures.seconds.value_or(0);
      }
      if (seconds > 0) metrics["seconds"] = seconds;
      row.add_run(metrics);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

void replace_file(const fs::path& file, const std::string& text) {
  const fs::path next = cat({file.string(), ".next"});
  {
    std::ofstream out(next, std::ios::binary | std::ios::trunc);
    out << text;
    out.flush();
    if (!out) throw Error(next.string() + " cannot be written: is the disk full?");
  }
  std::error_code error;
  fs::rename(next, file, error);
  if (error) throw Error(file.string() + " cannot be replaced: " + error.message());
}

void write_run_report(const fs::path& folder) {
  replace_file(folder / "report.html", report_html({read_run_folder(folder)}));
}

}  // namespace perennial::continual
