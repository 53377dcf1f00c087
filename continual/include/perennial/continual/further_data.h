// SPDX-License-Identifier: Apache-2.0
// Going on with a finished run: further data for what a store has learnt.
#pragma once

#include <string>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/continual/stream.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// A run over stream single may go on: each further data set is one more experience. The store keeps
// the test examples of each, as they were read, so that neither learning on nor evaluating needs
// the earlier files. Labels keep their numbers, new ones get the next, in ascending order; the
// preprocessing stays that of the first data set. The accuracy matrix gets a row and a column; in
// the rows so far, cells of the new test set are absent, but for the last one, which is taken
// before the new experience is learnt.
//
// With new classes the model grows (see load_model): an mlp, or a PEER layer with a width, gets
// outputs whose optimizer moments start anew; an analytic head gets columns of statistics. Experts
// that answer with the classes themselves (width 0) use outputs kept free for them (spare_classes):
// the generation that learns them trains these, older ones never give a new class. What a strategy
// knows goes on where it can (naive, grow_freeze, er, er_ace, and compositions of these; a replay
// memory must not be a ring).

// The stream of the run in `store`, for a Trainer that resumes it or gives its result. The data
// come from `config`, but for what the store keeps itself. Throws as Stream does.
Stream run_stream(const RunConfig& config, const storage::PageReader& store);

// The data set of config.stream as further data for the run in `store`, for a Trainer that opens an
// experience on them. A table must have the columns that were learnt, in any order if it names
// them. When these very data were the last to be learnt, or are being learnt, the run's own stream:
// a command that is given twice learns once. Throws InvalidOptions when the store holds no run,
// another one that has not finished, or one that cannot go on.
Stream further_stream(const RunConfig& config, const storage::PageReader& store);

// The differences of two configurations that further data must not have: all but the data set and
// how it is read, limits, and epochs, batch, learning rates and commits.
std::vector<std::string> further_differences(const RunConfig& stored, const RunConfig& asked);

}  // namespace perennial::continual
