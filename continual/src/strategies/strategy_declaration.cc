// SPDX-License-Identifier: Apache-2.0
// The strategies by name, their compositions, and their options.
#include "perennial/continual/strategy_declaration.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>

#include "strategies/strategies.h"

namespace perennial::continual {

namespace json = boost::json;

EnumNames<StrategySort> enum_names(StrategySort) {
  return {{StrategySort::alone, "alone"},
          {StrategySort::growth, "growth"},
          {StrategySort::replay, "replay"},
          {StrategySort::penalty, "penalty"},
          {StrategySort::distillation, "distillation"}};
}

const std::vector<const StrategyDeclaration*>& all_strategies() {
#define PERENNIAL_ADDRESS(name) &strategies::name(),
  static const std::vector<const StrategyDeclaration*> all = {
      PERENNIAL_STRATEGIES(PERENNIAL_ADDRESS)};
#undef PERENNIAL_ADDRESS
  return all;
}

const StrategyDeclaration& strategy_named(std::string_view field, std::string_view name) {
  for (const StrategyDeclaration* declaration : all_strategies()) {
    if (declaration->name == name) return *declaration;
  }
  std::vector<std::string> known;
  for (const StrategyDeclaration* declaration : all_strategies()) {
    known.emplace_back(declaration->name);
  }
  options_detail::throw_unknown("value for " + std::string(field), name, known);
}

json::object to_json(const StrategyDeclaration& declaration) {
  json::object made{{"name", declaration.name}, {"description", declaration.description}};
  made["composes_as"] = declaration.sort == StrategySort::alone
                            ? json::value(nullptr)
                            : json::value(enum_name(declaration.sort));
  json::object needs;
  const StrategyNeeds& all = declaration.needs;
  const auto need = [&](std::string_view name, std::string_view why) {
    if (!why.empty()) needs[name] = why;
  };
  need("dense_parameters", all.dense_parameters);
  need("pool", all.pool);
  need("expert_gradients", all.expert_gradients);
  need("classes", all.classes);
  need("oracle", all.oracle);
  if (all.boundaries) needs["boundaries"] = "is told where experiences begin and end";
  made["needs"] = std::move(needs);
  if (!declaration.differs.empty()) made["differs_from_paper"] = declaration.differs;
  json::array options;
  for (const DeclaredOption* declared : declaration.options) {
    std::any value = declared->initial(*declared);
    const Option option = declared->view(*declared, value);
    json::object one{{"name", option.name()}, {"default", option.json()}, {"doc", option.doc()}};
    if (std::isfinite(option.range().min) && std::isfinite(option.range().max)) {
      one["range"] = {option.range().min, option.range().max};
    }
    if (option.type() == Option::Type::choice) {
      const std::vector<std::string> choices = option.choices();
      one["choices"] = json::array(choices.begin(), choices.end());
    }
    options.push_back(std::move(one));
  }
  made["options"] = std::move(options);
  return made;
}

StrategySet StrategySet::parse(std::string_view field, std::string_view text) {
  // Where a name ends in "+", as "der++", the longest one that stands here is meant.
  const auto end_of_name = [](std::string_view rest) {
    std::size_t from = 0;
    for (const StrategyDeclaration* declaration : all_strategies()) {
      if (declaration->name.ends_with('+') && rest.starts_with(declaration->name)) {
        from = std::max(from, declaration->name.size());
      }
    }
    return rest.find('+', from);
  };
  StrategySet set;
  std::string_view rest = text;
  while (true) {
    const std::size_t plus = end_of_name(rest);
    set.parts_.push_back(&strategy_named(field, rest.substr(0, plus)));
    if (plus == std::string_view::npos) break;
    rest.remove_prefix(plus + 1);
  }
  const auto& all = all_strategies();
  std::ranges::sort(set.parts_, {}, [&](const StrategyDeclaration* part) {
    return std::ranges::find(all, part) - all.begin();
  });
  for (std::size_t i = 0; i + 1 < set.parts_.size(); ++i) {
    for (std::size_t j = i + 1; j < set.parts_.size(); ++j) {
      const StrategyDeclaration& a = *set.parts_[i];
      const StrategyDeclaration& b = *set.parts_[j];
      std::string what = std::string(field) + " is " + std::string(text) + ": ";
      if (&a == &b) throw InvalidOptions(what + std::string(a.name) + " is named twice");
      if (a.sort == StrategySort::alone || b.sort == StrategySort::alone) {
        const StrategyDeclaration& alone = a.sort == StrategySort::alone ? a : b;
        throw InvalidOptions(what + std::string(alone.name) + " does not compose with others");
      }
      if (a.sort == b.sort) {
        throw InvalidOptions(what + std::string(a.name) + " and " + std::string(b.name) +
                             " are of one sort, and only one of each composes");
      }
    }
  }
  return set;
}

std::string StrategySet::text() const {
  std::string text;
  for (const StrategyDeclaration* part : parts_) {
    if (!text.empty()) text += '+';
    text += part->name;
  }
  return text;
}

bool StrategySet::has(std::string_view name) const {
  return std::ranges::find(parts_, &strategy_named("strategy", name)) != parts_.end();
}

std::vector<std::string> StrategySet::options() const {
  std::vector<std::string> names;
  for (const StrategyDeclaration* part : parts_) {
    for (const DeclaredOption* option : part->options) names.emplace_back(option->name);
  }
  return names;
}

StrategyOptions::StrategyOptions() {
  for (const StrategyDeclaration* declaration : all_strategies()) {
    for (const DeclaredOption* option : declaration->options) {
      const bool known =
          std::ranges::any_of(values_, [&](const auto& value) { return value.first == option; });
      if (!known) values_.emplace_back(option, option->initial(*option));
    }
  }
}

const std::any& StrategyOptions::value_of(const DeclaredOption& option) const {
  for (const auto& [declared, value] : values_) {
    if (declared == &option) return value;
  }
  throw Error("no strategy declares the option " + std::string(option.name));
}

std::size_t StrategyOptions::place_of(std::string_view name) const {
  std::vector<std::string> known;
  for (std::size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].first->name == name) return i;
    known.emplace_back(values_[i].first->name);
  }
  options_detail::throw_unknown("option of a strategy", name, known);
}

void StrategyOptions::set(std::string_view name, const boost::json::value& value) {
  auto& [declared, stored] = values_[place_of(name)];
  declared->view(*declared, stored).set_json(name, value);
}

boost::json::value StrategyOptions::get(std::string_view name) const {
  const auto& [declared, stored] = values_[place_of(name)];
  std::any value = stored;  // a view may write
  return declared->view(*declared, value).json();
}

void StrategyOptions::refuse_unread(const StrategySet& read_by) const {
  const std::vector<std::string> read = read_by.options();
  for (const StrategyDeclaration* declaration : all_strategies()) {
    for (const DeclaredOption* option : declaration->options) {
      if (!option->refused_unread || std::ranges::find(read, option->name) != read.end()) continue;
      std::any initial = option->initial(*option);
      if (get(option->name) == option->view(*option, initial).json()) continue;
      throw InvalidOptions(std::string(option->name) + " is for strategy " +
                           std::string(declaration->name) + ", not for " + read_by.text());
    }
  }
}

void StrategyOptions::visit(StrategyOptions& self, OptionVisitor& visitor) {
  for (auto& [declared, value] : self.values_) visitor.option(declared->view(*declared, value));
}

}  // namespace perennial::continual
