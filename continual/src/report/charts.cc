// SPDX-License-Identifier: Apache-2.0
// Lines and bars as SVG.
#include "report/charts.h"

#include <algorithm>
#include <cmath>

#include "report/html.h"

namespace perennial::continual::report {

namespace {

constexpr double kWidth = 360, kHeight = 220;
constexpr double kLeft = 46, kRight = 10, kTop = 20, kBottom = 36;
constexpr std::size_t kColours = 8;
// Beyond so many points a series has no dots.
constexpr std::size_t kDots = 40;
// More vertical lines than that would be a pattern.
constexpr std::size_t kMarks = 20;
// A share of a value that means are exact to, and more.
constexpr double kRounding = 1e-9;
// Above it a cell's number is written in the page's colour: the better contrast, light or dark.
constexpr double kDarkCell = 0.66;

// Colour and dash of the i-th series: with more series than colours the next ones are dashed.
std::string series_class(std::size_t i) {
  return cat({"s", std::to_string(i % kColours + 1), " d", std::to_string(i / kColours % 3)});
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& text,
                    const std::string& more = "") {
  return cat({"<text x=\"", coordinate(x), "\" y=\"", coordinate(y), "\" text-anchor=\"", anchor,
              "\"", more, ">", escaped(text), "</text>"});
}

std::string line_from(double x1, double y1, double x2, double y2, const std::string& kind) {
  return cat({"<line class=\"", kind, "\" x1=\"", coordinate(x1), "\" y1=\"", coordinate(y1),
              "\" x2=\"", coordinate(x2), "\" y2=\"", coordinate(y2), "\"/>"});
}

// 1, 2 or 5 times a power of ten, so that about `wanted` of them make up `span`.
double nice_step(double span, int wanted, bool whole) {
  const double rough = span / wanted;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= rough * 0.999) step = factor * power;
  }
  return whole ? std::max(1.0, std::round(step)) : step;
}

struct Axis {
  double low = 0, high = 1, step = 1;
  int decimals = 0;

  Axis(double from, double to, int wanted, bool whole) {
    // Values that differ by no more than rounding have no ticks between them.
    if (!(to - from > kRounding * std::max(std::abs(from), std::abs(to)))) {
      const double pad = whole ? 1 : std::max(std::abs(from) * 0.1, 1e-3);
      from -= pad;
      to += pad;
    }
    low = from;
    high = to;
    step = nice_step(to - from, wanted, whole);
    decimals = step >= 1 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));
  }
  std::string label(double value) const {
    return std::abs(value) >= 1000 ? plain(value) : fixed(value, decimals);
  }
  std::vector<double> ticks() const {
    std::vector<double> all;
    const double first = std::ceil(low / step - 1e-9), last = std::floor(high / step + 1e-6);
    for (double at = first; at <= last; ++at) all.push_back(at * step);
    return all;
  }
};

std::string figure(const Caption& caption, const std::string& body) {
  std::string note;
  if (!caption.note.empty())
    note = cat({"<span class=\"note\">", escaped(caption.note), "</span>"});
  return cat({"<figure data-figure=\"", escaped(caption.id), "\"><figcaption>",
              escaped(caption.title), note, "</figcaption>", body, "</figure>\n"});
}

std::string svg(const Caption& caption, double width, double height, const std::string& content) {
  return cat({"<div class=\"scroll\"><svg viewBox=\"0 0 ", coordinate(width), " ",
              coordinate(height), "\" style=\"min-width:", coordinate(width > kWidth ? width : 0),
              "px\" role=\"img\" aria-label=\"", escaped(caption.title), "\">", content,
              "</svg></div>"});
}

std::string legend(const std::vector<Series>& series) {
  if (series.size() < 2) return "";
  std::string items;
  for (std::size_t i = 0; i < series.size(); ++i) {
    if (series[i].points.empty()) continue;
    items +=
        cat({"<li><svg class=\"key\" viewBox=\"0 0 18 8\" aria-hidden=\"true\"><line class=\"line ",
             series_class(i), "\" x1=\"0\" y1=\"4\" x2=\"18\" y2=\"4\"/></svg>",
             escaped(series[i].name), "</li>"});
  }
  return cat({"<ul class=\"legend\">", items, "</ul>"});
}

}  // namespace

std::string line_chart(const LineChart& chart) {
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      x_low = std::min(x_low, x);
      x_high = std::max(x_high, x);
      y_low = std::min(y_low, y);
      y_high = std::max(y_high, y);
    }
  }
  if (!(x_low <= x_high)) return "";
  if (chart.from_zero) {
    y_low = std::min(y_low, 0.0);
    y_high = std::max(y_high, 0.0);
    if (y_high == 0 && y_low == 0) y_high = 1;
  }
  if (chart.y_max) y_high = *chart.y_max;
  const Axis x(x_low, x_high, 5, chart.whole_x);
  Axis y(y_low, y_high, 4, false);
  // Whole steps above and below, so that no line touches the frame.
  y.low = std::floor(y.low / y.step + 1e-9) * y.step;
  y.high = std::ceil(y.high / y.step - 1e-9) * y.step;
  const auto px = [&](double v) {
    return kLeft + (v - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  };
  const auto py = [&](double v) {
    return kHeight - kBottom - (v - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  };

  std::string out;
  for (const double tick : y.ticks()) {
    out += line_from(kLeft, py(tick), kWidth - kRight, py(tick), "grid");
    out += text_at(kLeft - 5, py(tick) + 4, "end", y.label(tick));
  }
  for (const double mark : chart.marks) {
    if (mark > x.low && mark < x.high && chart.marks.size() <= kMarks) {
      out += line_from(px(mark), kTop, px(mark), kHeight - kBottom, "mark");
    }
  }
  for (const double tick : x.ticks()) {
    // The last label stays inside.
    const bool edge = px(tick) > kWidth - 22;
    out += text_at(edge ? kWidth - 2 : px(tick), kHeight - kBottom + 15, edge ? "end" : "middle",
                   x.label(tick));
  }
  out += line_from(kLeft, kHeight - kBottom, kWidth - kRight, kHeight - kBottom, "axis");
  out += text_at(kLeft - 5, 10, "start", chart.y_label, " class=\"label\" dx=\"-38\"");
  out += text_at(kWidth - kRight, kHeight - 5, "end", chart.x_label, " class=\"label\"");
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    const std::string kind = series_class(i), name = escaped(series.name);
    std::string path;
    for (const auto& [at, value] : series.points) {
      path += cat({(path.empty() ? "" : " "), coordinate(px(at)), ",", coordinate(py(value))});
    }
    out += cat({"<polyline class=\"line ", kind, "\" points=\"", path, "\"><title>", name,
                "</title></polyline>"});
    if (series.points.size() > kDots) continue;
    for (const auto& [at, value] : series.points) {
      out += cat({"<circle class=\"dot ", kind, "\" cx=\"", coordinate(px(at)), "\" cy=\"",
                  coordinate(py(value)), "\" r=\"2.5\"><title>", name, ": ", plain(value), " at ",
                  plain(at), "</title></circle>"});
    }
  }
  return figure(chart.caption, svg(chart.caption, kWidth, kHeight, out) + legend(chart.series));
}

std::string bar_chart(const Caption& caption, const std::vector<Bar>& bars) {
  if (bars.empty()) return "";
  constexpr double kRow = 34, kThick = 10, kValue = 96, kEdge = 4;
  double low = 0, high = 0;
  for (const Bar& bar : bars) {
    low = std::min(low, bar.mean - bar.spread.value_or(0));
    high = std::max(high, bar.mean + bar.spread.value_or(0));
  }
  if (low == high) high = 1;
  const double right = kWidth - kValue;
  const auto px = [&](double v) { return kEdge + (v - low) / (high - low) * (right - kEdge); };
  const double height = kRow * static_cast<double>(bars.size()) + 6;
  std::string out = line_from(px(0), 4, px(0), height - 4, "axis");
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const Bar& bar = bars[i];
    const double top = kRow * static_cast<double>(i) + 18, middle = top + kThick / 2;
    out += text_at(kEdge + 2, top - 4, "start", bar.name, " class=\"label\"");
    out += cat({"<rect class=\"bar s", std::to_string(i % kColours + 1), "\" x=\"",
                coordinate(px(std::min(bar.mean, 0.0))), "\" y=\"", coordinate(top), "\" width=\"",
                coordinate(std::abs(px(bar.mean) - px(0))), "\" height=\"", coordinate(kThick),
                "\"><title>", escaped(bar.name + ": " + bar.value), "</title></rect>"});
    if (bar.spread) {
      const double from = px(bar.mean - *bar.spread), to = px(bar.mean + *bar.spread);
      out += line_from(from, middle, to, middle, "error");
      out += line_from(from, middle - 4, from, middle + 4, "error");
      out += line_from(to, middle - 4, to, middle + 4, "error");
    }
    out += text_at(kWidth - 2, middle + 4, "end", bar.value);
  }
  return figure(caption, svg(caption, kWidth, height, out));
}

std::string heat_map(const HeatMap& map) {
  std::size_t columns = 0;
  for (const auto& row : map.values) columns = std::max(columns, row.size());
  if (columns == 0) return "";
  constexpr double kNames = 44, kHead = 32, kFoot = 4;
  const bool written = columns <= 12;
  const double factor = map.percent ? 100 : 1;
  const std::string unit = map.percent ? "%" : "";
  const double share = (kWidth - kNames - 4) / static_cast<double>(columns);
  const double cell = std::clamp(share, 4.0, 64.0);
  const double tall = written ? std::clamp(cell, 20.0, 26.0) : cell;
  // As many as fit; 0.997 is not 1.
  const int decimals = map.percent ? (cell >= 30 ? 1 : 0) : cell >= 44 ? 3 : cell >= 30 ? 2 : 1;
  const double gap = std::min(0.75, cell / 16);
  const double width = std::max(kWidth, kNames + cell * static_cast<double>(columns) + 4);
  const double height = kHead + tall * static_cast<double>(map.values.size()) + kFoot;
  const std::size_t every = written ? 1 : columns <= 30 ? 5 : 10;  // labels
  std::string out = text_at(kNames, 11, "start", map.column_label, " class=\"label\"");
  out += text_at(kNames - 6, kHead - 6, "end", map.row_label, " class=\"label\"");
  for (std::size_t j = 0; j < columns; ++j) {
    if (j != 0 && (j + 1) % every != 0) continue;
    out += text_at(kNames + cell * (static_cast<double>(j) + 0.5), kHead - 6, "middle",
                   std::to_string(j + 1));
  }
  for (std::size_t i = 0; i < map.values.size(); ++i) {
    const double top = kHead + tall * static_cast<double>(i);
    if (i % every == 0) {
      out += text_at(kNames - 6, top + tall / 2 + 4, "end", i < map.rows.size() ? map.rows[i] : "");
    }
    for (std::size_t j = 0; j < map.values[i].size(); ++j) {
      const std::optional<double>& value = map.values[i][j];
      if (!value) continue;
      const double left = kNames + cell * static_cast<double>(j);
      const bool own = map.mark_diagonal && i == j + 1;
      out +=
          cat({"<g><title>",
               escaped(cat({i < map.rows.size() ? map.rows[i] : std::string(), ", ",
                            std::to_string(j + 1), ": ", fixed(factor * *value, 2), unit})),
               "</title><rect class=\"cell", (own ? " own" : ""), "\" x=\"", coordinate(left + gap),
               "\" y=\"", coordinate(top + gap), "\" width=\"", coordinate(cell - 2 * gap),
               "\" height=\"", coordinate(tall - 2 * gap), "\" fill-opacity=\"",
               coordinate(0.04 + 0.96 * std::clamp(*value, 0.0, 1.0)), "\"/>"});
      if (written) {
        out += text_at(left + cell / 2, top + tall / 2 + 4, "middle",
                       fixed(factor * *value, decimals), *value > kDarkCell ? " class=\"on\"" : "");
      }
      out += "</g>";
    }
  }
  return figure(map.caption, svg(map.caption, width, height, out));
}

std::string table_figure(const TableFigure& table) {
  return figure(table.caption,
                cat({"<div class=\"scroll\">", html_table(table.columns, table.rows), "</div>"}));
}

}  // namespace perennial::continual::report
