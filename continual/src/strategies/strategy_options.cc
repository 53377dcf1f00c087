// SPDX-License-Identifier: Apache-2.0
// Names, descriptions and compositions of strategies.
#include "perennial/continual/strategy_options.h"

#include <algorithm>

namespace perennial::continual {

namespace {

// Sorts of strategies: of each at most one composes; those that stand alone compose with none.
enum class Sort : std::uint8_t { alone, growth, replay, penalty, distillation };

struct Entry {
  StrategyKind kind;
  std::string_view name;
  Sort sort;
  std::string_view description;
  std::vector<std::string> options;
  std::string_view differs = {};
  std::string_view classes = {};  // why it needs them
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = {
      {StrategyKind::naive,
       "naive",
       Sort::alone,
       "trains on each experience in turn and does nothing against forgetting; the lower bound",
       {}},
      {StrategyKind::joint,
       "joint",
       Sort::alone,
       "trains on all experiences together, shuffled; the upper bound, not a continual learner",
       {}},
      {StrategyKind::cumulative,
       "cumulative",
       Sort::alone,
       "trains on all experiences so far, keeping every example; its cost grows with the stream",
       {}},
      {StrategyKind::grow_freeze,
       "grow_freeze",
       Sort::growth,
       "grows the pool by a generation for each experience and freezes it afterwards; needs "
       "--model peer",
       {"output_regularisation", "growth", "growth_size", "growth_start", "growth_loss",
        "growth_window", "drift_threshold", "drift_steps", "drift_window"}},
      {StrategyKind::l2,
       "l2",
       Sort::penalty,
       "pulls parameters to where the last experience left them; needs --model mlp",
       {"l2_strength"}},
      {StrategyKind::ewc,
       "ewc",
       Sort::penalty,
       "elastic weight consolidation: the same, weighted by Fisher information summed over "
       "experiences; needs --model mlp",
       {"ewc_strength", "fisher", "fisher_examples", "strategy_seed"}},
      {StrategyKind::online_ewc,
       "online_ewc",
       Sort::penalty,
       "EWC with one decaying Fisher information and the newest parameters; needs --model mlp",
       {"online_ewc_strength", "ewc_gamma", "fisher", "fisher_examples", "strategy_seed"},
       "an experience's Fisher information is not normalised before it is added: the paper does so "
       "where rewards have scales of their own, a cross entropy has one scale, and published "
       "strengths (Hsu et al. 2018) are without it"},
      {StrategyKind::si,
       "si",
       Sort::penalty,
       "synaptic intelligence: the same, weighted by what each parameter did for the loss on its "
       "way; needs --model mlp",
       {"si_strength", "si_damping"},
       "what a parameter did counts only where it lowered the loss: a negative importance would "
       "reward change"},
      {StrategyKind::mas,
       "mas",
       Sort::penalty,
       "memory aware synapses: the same, weighted by the outputs' sensitivity; needs --model mlp",
       {"mas_strength", "fisher_examples"}},
      {StrategyKind::lwf,
       "lwf",
       Sort::distillation,
       "learning without forgetting: distils the model before the experience on its new data",
       {"lwf_strength", "lwf_temperature"}},
      {StrategyKind::er,
       "er",
       Sort::replay,
       "experience replay: adds examples from a memory to each batch",
       {"memory", "buffer", "memory_fill", "replay_batch", "strategy_seed"}},
      {StrategyKind::er_ace,
       "er_ace",
       Sort::replay,
       "replay with an asymmetric cross entropy: new examples compete among their own classes",
       {"memory", "buffer", "memory_fill", "replay_batch", "strategy_seed"},
       {},
       "lets fresh examples compete among their own classes"},
      {StrategyKind::agem,
       "agem",
       Sort::alone,
       "averaged gradient episodic memory: projects gradients that would raise the memory's loss; "
       "needs --model mlp",
       {"task_memory", "replay_batch", "strategy_seed"}},
      {StrategyKind::gem,
       "gem",
       Sort::alone,
       "gradient episodic memory: the same for each experience's memory, by a quadratic program; "
       "needs --model mlp",
       {"task_memory", "gem_margin"}},
      {StrategyKind::der,
       "der",
       Sort::replay,
       "dark experience replay: keeps the logits of remembered examples",
       {"memory", "buffer", "memory_fill", "replay_batch", "der_alpha", "strategy_seed"}},
      {StrategyKind::derpp,
       "der++",
       Sort::replay,
       "dark experience replay with the labels of a second sample",
       {"memory", "buffer", "memory_fill", "replay_batch", "der_alpha", "der_beta",
        "strategy_seed"}},
      {StrategyKind::gdumb,
       "gdumb",
       Sort::alone,
       "keeps a balanced memory, and after each experience trains a new model on it alone; needs "
       "--model mlp",
       {"memory", "gdumb_epochs", "strategy_seed"},
       "trains with the run's optimizer, rate and batch, without cut-mix and warm restarts, so "
       "that "
       "rows of a table differ in the method alone",
       "balances its memory over classes"},
      {StrategyKind::icarl,
       "icarl",
       Sort::alone,
       "distils with exemplars chosen by herding, and answers by the nearest mean of their "
       "features; needs --model mlp",
       {"memory", "strategy_seed"},
       "the loss is the mean over rows and classes where the paper writes the sum: a factor that "
       "Adam does not see, and that makes a learning rate independent of batch and classes",
       "keeps exemplars of each class"},
      {StrategyKind::sparse_slot,
       "sparse_slot",
       Sort::alone,
       "after the first experience updates only the experts that matter to what is new; needs "
       "--model peer",
       {"update_slots"}},
      {StrategyKind::packnet,
       "packnet",
       Sort::alone,
       "gives each experience weights of its own by pruning the rest; must be told at test which "
       "experience an input is from (scenario task, or gate oracle); needs --model mlp",
       {"packnet_prune", "packnet_retrain"}},
      {StrategyKind::progressive,
       "progressive",
       Sort::alone,
       "progressive networks: a new column of layers for each experience that reads the older "
       "ones; "
       "must be told at test which experience an input is from; needs --model mlp",
       {}},
  };
  return all;
}

const Entry& entry_of(StrategyKind kind) {
  for (const Entry& entry : entries()) {
    if (entry.kind == kind) return entry;
  }
  throw InvalidOptions("unknown strategy");
}

}  // namespace

EnumNames<StrategyKind> enum_names(StrategyKind) {
  EnumNames<StrategyKind> names;
  for (const Entry& entry : entries()) names.emplace_back(entry.kind, entry.name);
  return names;
}
EnumNames<FisherKind> enum_names(FisherKind) {
  return {{FisherKind::exact, "exact"},
          {FisherKind::sample, "sample"},
          {FisherKind::empirical, "empirical"},
          {FisherKind::batched, "batched"}};
}
EnumNames<GrowthSize> enum_names(GrowthSize) {
  return {{GrowthSize::full, "full"}, {GrowthSize::need, "need"}};
}
std::int64_t first_columns(const StrategyOptions& options) {
  return options.growth_size == GrowthSize::need ? options.growth_start : 0;
}

EnumNames<GrowthKind> enum_names(GrowthKind) {
  return {{GrowthKind::experience, "experience"}, {GrowthKind::drift, "drift"}};
}
EnumNames<BufferKind> enum_names(BufferKind) {
  return {{BufferKind::reservoir, "reservoir"},
          {BufferKind::class_balanced, "class_balanced"},
          {BufferKind::ring, "ring"},
          {BufferKind::greedy, "greedy"}};
}

EnumNames<FillKind> enum_names(FillKind) {
  return {{FillKind::stream, "stream"}, {FillKind::experience, "experience"}};
}

std::string_view describe(StrategyKind kind) { return entry_of(kind).description; }
std::string_view differs_from_paper(StrategyKind kind) { return entry_of(kind).differs; }
bool has_own_loss(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::lwf:
    case StrategyKind::er_ace:
    case StrategyKind::der:
    case StrategyKind::derpp:
    case StrategyKind::icarl:
      return true;
    default:
      return false;
  }
}
std::string_view needs_classes(StrategyKind kind) { return entry_of(kind).classes; }

StrategySet StrategySet::parse(std::string_view field, std::string_view text) {
  // "der++" is a name; every other "+" parts two.
  std::vector<std::string_view> names;
  std::string_view rest = text;
  while (true) {
    const std::size_t from = rest.starts_with("der++") ? std::string_view("der++").size() : 0;
    const std::size_t plus = rest.find('+', from);
    names.push_back(rest.substr(0, plus));
    if (plus == std::string_view::npos) break;
    rest.remove_prefix(plus + 1);
  }
  std::vector<StrategyKind> kinds;
  for (const std::string_view name : names) {
    kinds.push_back(parse_enum<StrategyKind>(field, name));
  }
  std::sort(kinds.begin(), kinds.end());
  for (std::size_t i = 0; i + 1 < kinds.size(); ++i) {
    for (std::size_t j = i + 1; j < kinds.size(); ++j) {
      const Entry& a = entry_of(kinds[i]);
      const Entry& b = entry_of(kinds[j]);
      std::string what = std::string(field) + " is " + std::string(text) + ": ";
      if (&a == &b) throw InvalidOptions(what + std::string(a.name) + " is named twice");
      if (a.sort == Sort::alone || b.sort == Sort::alone) {
        const Entry& alone = a.sort == Sort::alone ? a : b;
        throw InvalidOptions(what + std::string(alone.name) + " does not compose with others");
      }
      if (a.sort == b.sort) {
        throw InvalidOptions(what + std::string(a.name) + " and " + std::string(b.name) +
                             " are of one sort, and only one of each composes");
      }
    }
  }
  StrategySet set(kinds[0]);
  set.kinds_ = std::move(kinds);
  return set;
}

std::string StrategySet::text() const {
  std::string text;
  for (const StrategyKind kind : kinds_) {
    if (!text.empty()) text += '+';
    text += entry_of(kind).name;
  }
  return text;
}

bool StrategySet::has(StrategyKind kind) const {
  return std::find(kinds_.begin(), kinds_.end(), kind) != kinds_.end();
}

std::vector<std::string> options_of(const StrategySet& strategies) {
  std::vector<std::string> names;
  for (const StrategyKind kind : strategies.kinds()) {
    const std::vector<std::string>& own = entry_of(kind).options;
    names.insert(names.end(), own.begin(), own.end());
  }
  return names;
}

}  // namespace perennial::continual
