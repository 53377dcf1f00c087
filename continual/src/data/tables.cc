// SPDX-License-Identifier: Apache-2.0
// Escapes and lays out rows of results.
#include "perennial/continual/tables.h"

#include <algorithm>
#include <boost/json/value.hpp>
#include <cctype>
#include <optional>
#include <sstream>

#include "perennial/continual/statistics.h"

namespace perennial::continual {

namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

std::string markdown_escaped(const std::string& text) {
  std::string escaped;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    // Within a word it is no emphasis.
    if (c == '_' && i > 0 && is_word(text[i - 1]) && i + 1 < text.size() && is_word(text[i + 1])) {
      escaped += c;
      continue;
    }
    switch (c) {
      case '\n':
      case '\r':
      case '\t':
        escaped += ' ';
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '\\':
      case '|':
      case '`':
      case '*':
      case '_':
      case '[':
      case ']':
        escaped += '\\';
        [[fallthrough]];
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string csv_quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c;
    if (c == '"') quoted += c;
  }
  return quoted + '"';
}

}  // namespace

void ResultRow::add_run(const boost::json::object& run) {
  for (const auto& field : run) {
    if (!field.value().is_number()) continue;
    const std::string name(field.key());
    auto found = std::find_if(metrics.begin(), metrics.end(),
                              [&](const auto& metric) { return metric.first == name; });
    if (found == metrics.end()) found = metrics.insert(metrics.end(), {name, {}});
    found->second.push_back(field.value().to_number<double>());
  }
}

const std::vector<double>* ResultRow::find(const std::string& metric) const {
  for (const auto& [name, values] : metrics) {
    if (name == metric) return values.empty() ? nullptr : &values;
  }
  return nullptr;
}

std::string markdown_table(const TextTable& table) {
  std::string text = "|", rule = "\n|---|";
  for (std::size_t column = 1; column < table.columns.size(); ++column) rule += "---:|";
  const auto add = [&](const std::vector<std::string>& cells) {
    for (const std::string& cell : cells)
      text.append(" ").append(markdown_escaped(cell)).append(" |");
  };
  add(table.columns);
  text += rule;
  for (const std::vector<std::string>& row : table.rows) {
    text += "\n|";
    add(row);
  }
  return text + "\n";
}

std::string markdown_table(const std::vector<ResultRow>& rows,
                           const std::vector<std::string>& metrics) {
  TextTable table{"", {"strategy"}, {}};
  table.columns.insert(table.columns.end(), metrics.begin(), metrics.end());
  table.columns.emplace_back("seeds");
  for (const ResultRow& row : rows) {
    std::vector<std::string>& cells = table.rows.emplace_back(1, row.strategy);
    std::size_t seeds = 0;
    for (const std::string& metric : metrics) {
      const std::vector<double>* values = row.find(metric);
      cells.push_back(values == nullptr ? "-" : format_mean_sd(statistics_of(*values)));
      if (values != nullptr) seeds = std::max(seeds, values->size());
    }
    cells.push_back(std::to_string(seeds));
  }
  return markdown_table(table);
}

std::string csv_table(const std::vector<ResultRow>& rows) {
  std::ostringstream text;
  text.precision(17);
  text << "strategy,metric,mean,sd,sem,t95,seeds\n";
  for (const ResultRow& row : rows) {
    for (const auto& [metric, values] : row.metrics) {
      if (values.empty()) continue;
      const SeedStatistics s = statistics_of(values);
      text << csv_quoted(row.strategy) << ',' << csv_quoted(metric) << ',' << s.mean;
      for (const std::optional<double>& spread : {s.sd, s.sem, s.t95}) {
        text << ',';
        if (spread) text << *spread;
      }
      text << ',' << s.n << '\n';
    }
  }
  return text.str();
}

}  // namespace perennial::continual
