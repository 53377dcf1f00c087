// SPDX-License-Identifier: Apache-2.0
// Text for HTML and SVG: everything that comes from outside goes through escaped().
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace perennial::continual::report {

// The parts, one after the other.
std::string cat(std::initializer_list<std::string_view> parts);

// Safe as element content and as a quoted attribute; control characters become spaces.
std::string escaped(std::string_view text);

// A table of plain texts.
std::string html_table(const std::vector<std::string>& columns,
                       const std::vector<std::vector<std::string>>& rows);

// A coordinate: at most two decimals, no exponent.
std::string coordinate(double value);
// A number for people, with so many decimals; "-0.0" is "0.0".
std::string fixed(double value, int decimals);
// About four digits: "1,024", "12.35", "0.00123".
std::string plain(double value);

// A unit in which `largest` is a handy number, as {1048576, "MiB"}.
struct Unit {
  double divisor;
  const char* name;
};
Unit byte_unit(double largest);
Unit count_unit(double largest);

}  // namespace perennial::continual::report
