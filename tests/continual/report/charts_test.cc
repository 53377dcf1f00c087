// SPDX-License-Identifier: Apache-2.0
// The axes of charts.
#include "report/charts.h"

#include <gtest/gtest.h>

namespace perennial::continual::report {
namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(LineChart, HasAFewTicksWhateverItsValuesAre) {
  using Points = std::vector<std::pair<double, double>>;
  for (const Points& points :
       {Points{{0, 0.5}}, Points{{0, 0.25}, {1, 0.75}}, Points{{0, 0.5}, {1, 0.5}},
        Points{{0, 0.3}, {1, 0.1 + 0.2}},  // differ in the last bit
        Points{{0, 1e300}, {1, -1e300}}, Points{{0, 0}, {1, 1e-300}}}) {
    LineChart chart;
    chart.series.push_back({"a", points});
    const std::string svg = line_chart(chart);
    EXPECT_GE(count(svg, "class=\"grid\""), 2U) << points.back().second;
    EXPECT_LE(count(svg, "class=\"grid\""), 12U) << points.back().second;
  }
}

}  // namespace
}  // namespace perennial::continual::report
