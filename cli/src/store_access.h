// SPDX-License-Identifier: Apache-2.0
// Opening stores, and describing their commits.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>
#include <vector>

#include "perennial/storage/rocksdb_store.h"

namespace perennial::cli {

// Opens the store in `folder`; throws StorageError.
std::unique_ptr<storage::PageStore> open_store(
    const std::string& folder, storage::OpenMode mode = storage::OpenMode::existing);

// Opens a state of the store for reading, also beside a program that writes to it: that of a
// snapshot or commit, or the newest. Throws StorageError.
std::unique_ptr<storage::PageReader> open_view(const std::string& folder,
                                               const std::string& snapshot = {});

// The parts of a list written as "a,b,c"; throws InvalidOptions naming the flag for an empty part.
std::vector<std::string> split_list(const std::string& flag, const std::string& text);

// The fields of one commit. `note` is an object where the note is JSON, else text.
boost::json::object commit_json(const storage::CommitInfo& info);
// The note on one line: the plain fields of a JSON object as "key value, key value", else the text.
std::string note_text(const std::string& note);
// The note of a commit made by hand on top of `state`: that of the state's own commit, from which a
// run resumes, with "action" and "from" (a commit; absent when 0) put in.
std::string action_note(const storage::PageReader& state, const std::string& action,
                        std::uint64_t from = 0);

}  // namespace perennial::cli
