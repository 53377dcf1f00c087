// SPDX-License-Identifier: Apache-2.0
// The options of strategies: each is declared once, where it is read.
#pragma once

#include <any>
#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "perennial/core/options.h"

namespace perennial::continual {

class StrategySet;

// What is known of an option whose type only its declaration knows. A constant.
struct DeclaredOption {
  std::string_view name;
  std::string_view doc;
  Range range;
  // What to do where it is not at its default and no strategy of a run reads it: refuse the run
  // (it says what the run is), or leave it unread (a number that many runs share).
  bool refused_unread;
  std::any (*initial)(const DeclaredOption&);
  Option (*view)(const DeclaredOption&, std::any&);
};

// An option and its default; strategies that share an option name the same object.
//   constexpr StrategyOption<double> kDerBeta{"der_beta", 0.5, "weight of ...", Range{0, 1e6}};
template <class T>
struct StrategyOption : DeclaredOption {
  constexpr StrategyOption(std::string_view name, T initial_value, std::string_view doc,
                           Range range = {}, bool refused_unread = false)
      : DeclaredOption{name,
                       doc,
                       range,
                       refused_unread,
                       [](const DeclaredOption& self) -> std::any {
                         return static_cast<const StrategyOption&>(self).value;
                       },
                       [](const DeclaredOption& self, std::any& value) {
                         return Option(self.name, *std::any_cast<T>(&value), self.doc, self.range);
                       }},
        value(initial_value) {}
  T value;
};

// The options of all strategies there are, each once. Strengths do not carry over between
// libraries: each strategy's file states its formula.
class StrategyOptions {
 public:
  // At their defaults.
  StrategyOptions();

  template <class T>
  const T& operator[](const StrategyOption<T>& option) const {
    return *std::any_cast<T>(&value_of(option));
  }
  // By name, enums by theirs. Throw InvalidOptions for a name that no strategy declares; set() also
  // for a value of another type.
  void set(std::string_view name, const boost::json::value& value);
  boost::json::value get(std::string_view name) const;

  // Throws InvalidOptions for an option that is refused_unread and that `read_by` does not read.
  void refuse_unread(const StrategySet& read_by) const;

  static void visit(StrategyOptions& self, OptionVisitor& visitor);

 private:
  const std::any& value_of(const DeclaredOption& option) const;
  std::size_t place_of(std::string_view name) const;

  std::vector<std::pair<const DeclaredOption*, std::any>> values_;
};

}  // namespace perennial::continual
