// SPDX-License-Identifier: Apache-2.0
// Messages and conversions shared by the option visitors.
#include "perennial/core/options.h"

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>

#include "perennial/core/text.h"

namespace perennial {

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= name.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        const std::size_t substituted = diagonal + (name[i - 1] != candidate[j - 1] ? 1 : 0);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

namespace options_detail {

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void throw_unknown(std::string_view what, std::string_view name,
                   const std::vector<std::string>& known) {
  std::string message = "unknown " + std::string(what) + " '" + std::string(name) + "'";
  const std::string nearest = nearest_name(name, known);
  message += nearest.empty() ? "; known: " + join(known) : "; did you mean '" + nearest + "'?";
  throw InvalidOptions(message);
}

void throw_out_of_range(std::string_view name, double value, Range range) {
  std::ostringstream message;
  message.precision(15);  // enough for every 32-bit limit, few enough for 0.1
  message << name << " is " << value << "; allowed: " << range.min << " to " << range.max;
  throw InvalidOptions(message.str());
}

void require_utf8(std::string_view name, std::string_view text) {
  if (invalid_utf8(text) == text.npos) return;
  throw InvalidOptions(std::string(name) + " is '" + valid_utf8(text) +
                       "', which is not UTF-8 and could not be stored; rename what it names");
}

void throw_wrong_type(std::string_view name, const char* expected,
                      const boost::json::value& found) {
  throw InvalidOptions(std::string(name) + " must be " + expected + ", not " +
                       boost::json::serialize(found));
}

std::int64_t to_integer(std::string_view name, const boost::json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_uint64() && std::in_range<std::int64_t>(value.get_uint64())) {
    return static_cast<std::int64_t>(value.get_uint64());
  }
  throw_wrong_type(name, "an integer", value);
}

double to_number(std::string_view name, const boost::json::value& value) {
  if (value.is_double()) return value.get_double();
  if (value.is_int64()) return static_cast<double>(value.get_int64());
  if (value.is_uint64()) return static_cast<double>(value.get_uint64());
  if (value.is_string()) {
    const std::string_view text(value.get_string());
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  throw_wrong_type(name, "a number", value);
}

boost::json::value exact_number(double value) {
  const boost::json::value number(value);
  const boost::json::value read_back = boost::json::parse(boost::json::serialize(number));
  if (read_back.is_double() && read_back.get_double() == value) return number;
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return boost::json::value(
      std::string_view(text.data(), static_cast<std::size_t>(end - text.data())));
}

}  // namespace options_detail

void FromJsonVisitor::refuse_unknown() const {
  for (const auto& entry : object_) {
    const std::string_view key(entry.key());
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      options_detail::throw_unknown("key", key, known_);
    }
  }
}

}  // namespace perennial
