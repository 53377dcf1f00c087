// SPDX-License-Identifier: Apache-2.0
// Names of status codes and the one-line form of a status.
#include "perennial/storage/status.h"

namespace perennial::storage {

std::string_view to_string(StatusCode code) {
  switch (code) {
    case StatusCode::ok:
      return "ok";
    case StatusCode::not_found:
      return "not_found";
    case StatusCode::corruption:
      return "corruption";
    case StatusCode::version_mismatch:
      return "version_mismatch";
    case StatusCode::io_error:
      return "io_error";
    case StatusCode::invalid_argument:
      return "invalid_argument";
    case StatusCode::busy:
      return "busy";
    case StatusCode::no_space:
      return "no_space";
  }
  return "unknown";
}

std::string Status::to_string() const {
  std::string text(storage::to_string(code_));
  if (!message_.empty()) text.append(": ").append(message_);
  return text;
}

}  // namespace perennial::storage
