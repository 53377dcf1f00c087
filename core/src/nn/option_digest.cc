// SPDX-License-Identifier: Apache-2.0
// Which options came after the first digests.
#include "nn/option_digest.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "perennial/core/peer.h"

namespace perennial {

boost::json::object digested_options(const boost::json::object& options) {
  constexpr std::array<std::string_view, 3> kLater = {"expert_width", "dtype", "dropout"};
  const boost::json::object defaults = to_json(PeerOptions{});
  boost::json::object digested;
  for (const auto& [name, value] : options) {
    const bool later =
        std::find(kLater.begin(), kLater.end(), std::string_view(name)) != kLater.end();
    if (!later || value != defaults.at(name)) digested.emplace(name, value);
  }
  return digested;
}

}  // namespace perennial
