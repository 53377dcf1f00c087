// SPDX-License-Identifier: Apache-2.0
// Escaping and number formats.
#include "report/html.h"

#include <cmath>
#include <cstdio>

namespace perennial::continual::report {

std::string cat(std::initializer_list<std::string_view> parts) {
  std::size_t size = 0;
  for (const std::string_view part : parts) size += part.size();
  std::string text;
  text.reserve(size);
  for (const std::string_view part : parts) text += part;
  return text;
}

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  }
  return safe;
}

std::string html_table(const std::vector<std::string>& columns,
                       const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<table><thead><tr>";
  for (const std::string& column : columns) html += cat({"<th>", escaped(column), "</th>"});
  html += "</tr></thead><tbody>";
  for (const std::vector<std::string>& row : rows) {
    html += "<tr>";
    for (const std::string& text : row) html += cat({"<td>", escaped(text), "</td>"});
    html += "</tr>";
  }
  return cat({html, "</tbody></table>"});
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  std::string result = text;
  if (result.find_first_not_of("-0.") == std::string::npos && result.front() == '-') {
    result.erase(0, 1);
  }
  return result;
}

std::string coordinate(double value) {
  std::string text = fixed(value, 2);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string plain(double value) {
  char text[64];
  const double size = std::abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) {
    std::snprintf(text, sizeof(text), "%.3g", value);
    return text;
  }
  if (size < 1000) {
    std::snprintf(text, sizeof(text), "%.4g", value);
    return text;
  }
  std::string digits = fixed(value, 0);
  for (std::size_t at = digits.size(); at > (value < 0 ? 4U : 3U);) digits.insert(at -= 3, 1, ',');
  return digits;
}

Unit byte_unit(double largest) {
  if (largest >= 1024.0 * 1024 * 1024) return {1024.0 * 1024 * 1024, "GiB"};
  if (largest >= 1024.0 * 1024) return {1024.0 * 1024, "MiB"};
  if (largest >= 1024) return {1024, "KiB"};
  return {1, "bytes"};
}

Unit count_unit(double largest) {
  if (largest >= 1e9) return {1e9, "billions"};
  if (largest >= 1e6) return {1e6, "millions"};
  if (largest >= 1e4) return {1e3, "thousands"};
  return {1, ""};
}

}  // namespace perennial::continual::report
