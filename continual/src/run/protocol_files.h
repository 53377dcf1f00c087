// SPDX-License-Identifier: Apache-2.0
// The files of continual/protocols, as the build put them into the library.
#pragma once

#include <span>
#include <string_view>

namespace perennial::continual {

struct ProtocolFile {
  std::string_view name;  // the file's, without .json
  std::string_view text;
};
// Ascending by name.
std::span<const ProtocolFile> protocol_files();

}  // namespace perennial::continual
