// SPDX-License-Identifier: Apache-2.0
// Numbering labels.
#include "data/label_table.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

namespace perennial::continual {
namespace {

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

LabelTable::LabelTable(const std::vector<std::string>& known) {
  for (const std::string& label : known) add(label);
}

std::int64_t LabelTable::find(const std::string& label) const {
  const auto found = numbers_.find(label);
  return found == numbers_.end() ? -1 : found->second;
}

std::int64_t LabelTable::add(const std::string& label) {
  const auto [place, is_new] = numbers_.try_emplace(label, std::ssize(names_));
  if (is_new) names_.push_back(label);
  return place->second;
}

void LabelTable::add_sorted(const std::vector<std::string>& labels) {
  std::set<std::string> fresh;
  for (const std::string& label : labels) {
    if (find(label) < 0) fresh.insert(label);
  }
  std::vector<std::string> order(fresh.begin(), fresh.end());
  const auto is_number = [](const std::string& label) { return whole_number(label).has_value(); };
  if (std::all_of(order.begin(), order.end(), is_number)) {
    std::stable_sort(order.begin(), order.end(), [](const std::string& a, const std::string& b) {
      return *whole_number(a) < *whole_number(b);
    });
  }
  for (const std::string& label : order) add(label);
}

}  // namespace perennial::continual
