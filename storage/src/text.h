// SPDX-License-Identifier: Apache-2.0
// Builds one-line messages out of their parts.
#pragma once

#include <sstream>
#include <string>

#include "perennial/storage/status.h"

namespace perennial::storage {

template <class... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
Status error(StatusCode code, const Parts&... parts) {
  return {code, text_of(parts...)};
}

}  // namespace perennial::storage
