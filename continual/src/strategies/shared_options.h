// SPDX-License-Identifier: Apache-2.0
// Options that several strategies read.
#pragma once

#include "perennial/continual/strategy_options.h"
#include "strategies/replay_buffer.h"

namespace perennial::continual {

inline constexpr StrategyOption<std::int64_t> kStrategySeed{
    "strategy_seed", 1, "seed of what a strategy draws", Range{0, 9e15}};
inline constexpr StrategyOption<std::int64_t> kMemory{"memory", 500, "examples kept for replay, M",
                                                      Range{0, 1e8}};
inline constexpr StrategyOption<BufferKind> kBuffer{"buffer", BufferKind::reservoir,
                                                    "which examples the replay memory keeps"};
inline constexpr StrategyOption<FillKind> kMemoryFill{
    "memory_fill", FillKind::stream,
    "when the replay memory is filled: stream (with each step's examples) or experience (after "
    "each experience)"};
inline constexpr StrategyOption<std::int64_t> kReplayBatch{
    "replay_batch", 0, "replayed examples a step (der++ replays two such samples); 0 = batch",
    Range{0, 1048576}};
inline constexpr StrategyOption<double> kDerAlpha{
    "der_alpha", 0.1, "der, der++: weight of the logits' squared error", Range{0, 1e6}};
inline constexpr StrategyOption<std::int64_t> kTaskMemory{
    "task_memory", 256, "gem, agem: examples kept of each experience", Range{0, 1e8}};
inline constexpr StrategyOption<std::int64_t> kFisherExamples{
    "fisher_examples", 0,
    "ewc, mas: training examples of an experience to estimate importances from, 0 = all",
    Range{0, 1e9}};

}  // namespace perennial::continual
