// SPDX-License-Identifier: Apache-2.0
// The figures of a report, each an HTML figure with one inline SVG or a table. Drawings are 360
// units wide, a phone's width, so that text keeps its size there; colours are the page's CSS
// classes.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace perennial::continual::report {

// Texts are plain; they are escaped here. `id` names the kind of figure (data-figure).
struct Caption {
  std::string id;
  std::string title;
  std::string note;  // below the title; may be empty
};

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // ascending x
};

struct LineChart {
  Caption caption;
  std::string x_label, y_label;
  std::vector<Series> series;
  bool from_zero = false;     // the y axis includes 0
  bool whole_x = true;        // ticks of the x axis are whole numbers
  std::vector<double> marks;  // vertical lines, as ends of experiences
  std::optional<double> y_max;
};
// Empty text when there is no point.
std::string line_chart(const LineChart& chart);

struct Bar {
  std::string name;
  double mean = 0;
  std::optional<double> spread;  // drawn as mean +- spread
  std::string value;             // what is written beside it
};
// Horizontal bars from zero, names above them. Colours as the series of a line chart in this order.
std::string bar_chart(const Caption& caption, const std::vector<Bar>& bars);

struct HeatMap {
  Caption caption;
  std::string row_label, column_label;
  std::vector<std::string> rows;                           // names; columns are numbered from 1
  std::vector<std::vector<std::optional<double>>> values;  // darker from 0 to 1
  bool percent = true;                                     // values are written times 100
  bool mark_diagonal = false;  // row i + 1 (0 is before training) with column i
};
std::string heat_map(const HeatMap& map);

// A figure that is a table.
struct TableFigure {
  Caption caption;
  std::vector<std::string> columns;  // names
  std::vector<std::vector<std::string>> rows;
};
std::string table_figure(const TableFigure& table);

}  // namespace perennial::continual::report
