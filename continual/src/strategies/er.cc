// SPDX-License-Identifier: Apache-2.0
// Experience replay.
#include "strategies/replay.h"

namespace perennial::continual {

namespace {

// Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning" (arXiv 1902.10486),
// algorithm 1: each step trains on a batch B_n of the stream and as many examples B_M of the
// memory, by the mean cross entropy of B_n u B_M; then B_n is offered to the memory. Defaults: M =
// 500, a reservoir, as many replayed as fresh (the paper draws from the whole memory, of which the
// fresh rows' own experience is a part). Naive, bit for bit, at M = 0.
class ExperienceReplay : public Replay {
 public:
  ExperienceReplay(const RunConfig& config, const StreamShape& shape)
      : Replay("er", config, shape, From::earlier, false, 1) {}
};

}  // namespace

const StrategyDeclaration& strategies::er() {
  static const StrategyDeclaration declaration{
      .name = "er",
      .sort = StrategySort::replay,
      .description = "experience replay: adds examples from a memory to each batch",
      .options = Replay::options({}),
      .needs = {.boundaries = true},
      .refuse = Replay::refuse,
      .make = make_one<ExperienceReplay>,
  };
  return declaration;
}

}  // namespace perennial::continual
