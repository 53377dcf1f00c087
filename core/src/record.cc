// SPDX-License-Identifier: Apache-2.0
// Reads records.
#include "record.h"

#include <boost/json/parse.hpp>
#include <utility>

namespace perennial {

void throw_malformed(std::string_view name, const std::string& why) {
  throw DataError("the store's record '" + std::string(name) + "' is malformed: " + why);
}

boost::json::object parse_record(std::string_view name, const storage::Bytes& bytes) {
  return from_record(name,
                     [&] { return std::move(boost::json::parse(text_from(bytes)).as_object()); });
}

boost::json::object read_record(const storage::PageReader& store, const std::string& name) {
  return parse_record(name, value_or_throw(store.read_dense(name)));
}

void require_no_record(const storage::PageReader& store, const std::string& name,
                       const std::string& what) {
  if (!store.dense_size(name).ok()) return;
  throw Error("store " + store.location() + " has " + what +
              " already, which a new one would replace; load() what is there");
}

void remove_entries(const storage::PageReader& store, std::string_view prefix,
                    storage::CommitRequest& request) {
  for (const std::string& name : store.dense_names()) {
    if (name.starts_with(prefix)) request.removed_dense.push_back(name);
  }
}

}  // namespace perennial
