// SPDX-License-Identifier: Apache-2.0
// Reads records.
#include "record.h"

#include <boost/json/parse.hpp>
#include <utility>

namespace perennial {

void throw_malformed(std::string_view name, const std::string& why) {
  throw DataError("the store's record '" + std::string(name) + "' is malformed: " + why);
}

boost::json::object read_record(const storage::PageReader& store, const std::string& name) {
  const std::string text = text_from(value_or_throw(store.read_dense(name)));
  return from_record(name, [&] { return std::move(boost::json::parse(text).as_object()); });
}

void remove_entries(const storage::PageReader& store, std::string_view prefix,
                    storage::CommitRequest& request) {
  for (const std::string& name : store.dense_names()) {
    if (name.starts_with(prefix)) request.removed_dense.push_back(name);
  }
}

}  // namespace perennial
