// SPDX-License-Identifier: Apache-2.0
// The system's error number as a status.
#include "os_error.h"

#include <cerrno>
#include <system_error>

#include "text.h"

namespace perennial::storage {

Status os_error(const std::filesystem::path& path, int number) {
  const StatusCode code = number == ENOSPC || number == EDQUOT ? StatusCode::no_space
                          : number == ENOENT                   ? StatusCode::not_found
                                                               : StatusCode::io_error;
  return error(code, path.string(), ": ", std::generic_category().message(number));
}

}  // namespace perennial::storage
