// SPDX-License-Identifier: Apache-2.0
// Values that may be absent, as JSON.
#pragma once

#include <boost/json/value.hpp>
#include <optional>

namespace perennial::continual {

inline boost::json::value or_null(std::optional<double> metric) {
  return metric ? boost::json::value(*metric) : boost::json::value(nullptr);
}

}  // namespace perennial::continual
