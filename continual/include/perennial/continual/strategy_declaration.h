// SPDX-License-Identifier: Apache-2.0
// What a strategy says of itself: flags, help, checks and `perennial strategies` come from it.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/continual/strategy_options.h"

namespace perennial::continual {

class Strategy;
struct RunConfig;
struct StreamShape;

// Of each sort at most one composes with others; those that stand alone compose with none.
enum class StrategySort : std::uint8_t { alone, growth, replay, penalty, distillation };
EnumNames<StrategySort> enum_names(StrategySort);

// What a strategy cannot do without. A text is the rest of the sentence "strategy NAME ...", which
// says why; empty where it is not needed.
struct StrategyNeeds {
  std::string_view dense_parameters = {};  // model mlp
  std::string_view pool = {};              // model peer
  std::string_view expert_gradients = {};  // model peer with width 0
  std::string_view classes = {};           // task classification
  std::string_view oracle = {};            // to be told at test which experience an input is from
  bool boundaries = false;                 // to be told where experiences begin and end
};

// Options of a strategy that a run would not look at, and what they would need.
struct UnreadOptions {
  std::vector<std::string> names;
  std::string needs;
};

struct StrategyDeclaration {
  std::string_view name;
  StrategySort sort = StrategySort::alone;
  std::string_view description;  // one line: what it does
  std::vector<const DeclaredOption*> options = {};
  StrategyNeeds needs = {};
  // Where it differs from its paper in what it computes, and why.
  std::string_view differs = {};
  // It has a loss of its own, or adds to the task's, which is of a step's rows together.
  bool own_loss = false;
  // It reads outputs of other classes than those of an example's experience.
  bool all_outputs = false;
  // It also trains after an experience, with steps of its own.
  bool trains_after = false;
  // It has something to do where nothing trains by gradient (head analytic).
  bool without_training = false;
  // Columns that a new generation opens with; 0 = as the model's options say.
  std::int64_t (*first_columns)(const StrategyOptions&) = nullptr;
  // Throws InvalidOptions for what else cannot work.
  void (*refuse)(const RunConfig&) = nullptr;
  // What of its options a run would not look at.
  std::vector<UnreadOptions> (*unread)(const RunConfig&) = nullptr;
  // Throws InvalidOptions for what only the stream can tell. The configuration is valid.
  std::unique_ptr<Strategy> (*make)(const RunConfig&, const StreamShape&) = nullptr;
};

// The strategies there are, in the order of help.
const std::vector<const StrategyDeclaration*>& all_strategies();
// Throws InvalidOptions, calling what was looked up `field` and naming the nearest.
const StrategyDeclaration& strategy_named(std::string_view field, std::string_view name);

// What `perennial strategies` shows of one: "name", "description", "composes_as" (null where it
// stands alone), "needs" with reasons, "differs_from_paper" where it does, and "options" with
// "default", "doc", and "range" or "choices" where there are such.
boost::json::object to_json(const StrategyDeclaration& declaration);

// One strategy, or several that work together, written with "+": "grow_freeze+er".
class StrategySet {
 public:
  // Throw InvalidOptions for an unknown name (naming the nearest one), a name given twice, or
  // strategies that do not compose. The order of the names does not matter.
  StrategySet(std::string_view text) : StrategySet(parse("strategy", text)) {}  // NOLINT: its text
  StrategySet(const char* text) : StrategySet(std::string_view(text)) {}        // NOLINT
  static StrategySet parse(std::string_view field, std::string_view text);
  std::string text() const;

  // In the order of all_strategies().
  const std::vector<const StrategyDeclaration*>& parts() const { return parts_; }
  bool has(std::string_view name) const;
  // Names of the options that its strategies read.
  std::vector<std::string> options() const;
  bool operator==(const StrategySet&) const = default;

 private:
  StrategySet() = default;

  std::vector<const StrategyDeclaration*> parts_;
};

}  // namespace perennial::continual
