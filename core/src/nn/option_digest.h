// SPDX-License-Identifier: Apache-2.0
// Options as digests see them.
#pragma once

#include <boost/json/object.hpp>

namespace perennial {

// `options` without those that were added after the first digests and have their default: what
// froze before there was such an option keeps its digest.
boost::json::object digested_options(const boost::json::object& options);

}  // namespace perennial
