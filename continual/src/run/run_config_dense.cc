// SPDX-License-Identifier: Apache-2.0
// Checks of a run's configuration: what dense layers read.
#include <string>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

void RunConfig::validate_dense() const {
  if (model.inputs == InputKind::filters) {
    if (model.model != ModelKind::mlp) {
      throw InvalidOptions("inputs filters is for model mlp, not for " +
                           std::string(enum_name(model.model)) +
                           ", which reads filters with head analytic");
    }
    if (model.head_filters == 0) {
      throw InvalidOptions("head_filters is 0; inputs filters reads nothing else");
    }
  }
  if (model.model == ModelKind::mlp && model.depth == 0 && model.dropout > 0) {
    throw InvalidOptions("dropout is " + options_detail::short_number(model.dropout) +
                         "; it leaves out hidden units, and an mlp of depth 0 has none");
  }
}

}  // namespace perennial::continual
