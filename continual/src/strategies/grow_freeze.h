// SPDX-License-Identifier: Apache-2.0
// The options of grow_freeze, which its two forms and what they are made of read.
#pragma once

#include "strategies/strategies.h"

namespace perennial::continual {

// When grow_freeze opens a generation. experience: for each experience. drift: when the loss says
// that the stream's distribution has changed (drift.h), for streams without announced boundaries.
enum class GrowthKind : std::uint8_t { experience, drift };
EnumNames<GrowthKind> enum_names(GrowthKind);

// How large a generation of grow_freeze becomes. full: rows x cols experts. need: it opens with
// growth_start columns, which double, up to cols, whenever its loss has stopped falling above
// growth_loss (strategies/growth_size.h).
enum class GrowthSize : std::uint8_t { full, need };
EnumNames<GrowthSize> enum_names(GrowthSize);

inline constexpr StrategyOption<double> kOutputRegularisation{
    "output_regularisation", 0,
    "grow_freeze with shared routing: weight of distilling the layer as it was before the "
    "experience",
    Range{0, 1e6}, true};
inline constexpr StrategyOption<GrowthKind> kGrowth{
    "growth", GrowthKind::experience,
    "grow_freeze: a generation for each experience, or for each drift that the loss shows", Range{},
    true};
inline constexpr StrategyOption<GrowthSize> kGrowthSize{
    "growth_size", GrowthSize::full,
    "grow_freeze: a generation has all rows x cols experts from the start (full), or growth_start "
    "columns that double when its loss asks for more (need)",
    Range{}, true};
inline constexpr StrategyOption<std::int64_t> kGrowthStart{
    "growth_start", 4, "growth_size need: columns of a new generation", Range{1, 4294967295.}};
inline constexpr StrategyOption<double> kGrowthLoss{
    "growth_loss", 0.5,
    "growth_size need: mean loss of the last growth_window steps above which a generation's "
    "columns double, once it has stopped falling",
    Range{0, 1e6}};
inline constexpr StrategyOption<std::int64_t> kGrowthWindow{
    "growth_window", 50, "growth_size need: steps between two looks at the loss", Range{1, 1e9}};
inline constexpr StrategyOption<double> kDriftThreshold{
    "drift_threshold", 3,
    "growth drift: standard deviations above the mean at which a batch's loss is suspicious",
    Range{0.1, 1e6}};
inline constexpr StrategyOption<std::int64_t> kDriftSteps{
    "drift_steps", 3, "growth drift: suspicious batches in a row that decide", Range{1, 1000}};
inline constexpr StrategyOption<std::int64_t> kDriftWindow{
    "drift_window", 50,
    "growth drift: batches that mean and deviation are taken over, and before which no drift is "
    "seen",
    Range{2, 1e6}};

// grow_freeze with growth drift.
StrategyPointer make_grow_on_drift(const StrategyOptions& options);
// Throws InvalidOptions for what options of grow_freeze cannot work with.
void refuse_growth(const RunConfig& config);

}  // namespace perennial::continual
