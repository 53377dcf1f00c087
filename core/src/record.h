// SPDX-License-Identifier: Apache-2.0
// Records: JSON objects that the parts of a model keep as dense entries of a store.
#pragma once

#include <boost/json/object.hpp>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"
#include "perennial/storage/page_store.h"

namespace perennial {

// Throws DataError naming the record where its bytes are no JSON object; read_record()
// StorageError, too.
boost::json::object parse_record(std::string_view name, const storage::Bytes& bytes);
boost::json::object read_record(const storage::PageReader& store, const std::string& name);

[[noreturn]] void throw_malformed(std::string_view name, const std::string& why);

// Takes a record apart: the result of `take`. What that throws becomes a DataError naming the
// record; StorageError and bad_alloc pass.
template <class Take>
auto from_record(std::string_view name, Take&& take) {
  try {
    return take();
  } catch (const StorageError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw_malformed(name, error.what());
  }
}

// Throws Error where the store has the record; what: "a layer 'a'".
void require_no_record(const storage::PageReader& store, const std::string& name,
                       const std::string& what);

// Adds a stored record to `request` as `edit` leaves it.
template <class Edit>
void edit_record(const storage::PageReader& store, const std::string& name,
                 storage::CommitRequest& request, Edit&& edit) {
  boost::json::object record = read_record(store, name);
  from_record(name, [&] { edit(record); });
  request.dense[name] = bytes_from(record_text(record));
}

// Adds the dense entries that begin with `prefix` to what `request` removes.
void remove_entries(const storage::PageReader& store, std::string_view prefix,
                    storage::CommitRequest& request);

}  // namespace perennial
