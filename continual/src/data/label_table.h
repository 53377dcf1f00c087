// SPDX-License-Identifier: Apache-2.0
// Labels that are text, and their numbers.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace perennial::continual {

// Numbers are given out once and never change. Single-threaded.
class LabelTable {
 public:
  explicit LabelTable(const std::vector<std::string>& known = {});

  // The label's number; -1 when it has none.
  std::int64_t find(const std::string& label) const;
  // The label's number, a new one where it has none.
  std::int64_t add(const std::string& label);
  // Gives numbers to those that have none, in ascending order: as numbers when all of the new ones
  // are whole ones, else by their bytes.
  void add_sorted(const std::vector<std::string>& labels);
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string, std::int64_t> numbers_;
};

}  // namespace perennial::continual
