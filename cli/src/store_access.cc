// SPDX-License-Identifier: Apache-2.0
// What commands over a store share.
#include "store_access.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <optional>

#include "perennial/core/error.h"

namespace perennial::cli {
namespace {

std::optional<boost::json::object> parse_note(const std::string& note) {
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(note, error);
  if (error || !value.is_object()) return std::nullopt;
  return value.get_object();
}

}  // namespace

std::unique_ptr<storage::PageStore> open_store(const std::string& folder, storage::OpenMode mode) {
  return value_or_throw(storage::open_rocksdb_store(folder, {.mode = mode}));
}

std::unique_ptr<storage::PageReader> open_view(const std::string& folder,
                                               const std::string& snapshot) {
  return value_or_throw(storage::open_rocksdb_view(folder, {.snapshot = snapshot}));
}

std::vector<std::string> split_list(const std::string& flag, const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) throw InvalidOptions("--" + flag + " '" + text + "' has an empty part");
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

boost::json::object commit_json(const storage::CommitInfo& info) {
  boost::json::object object;
  object["commit"] = info.commit;
  object["parent"] = info.parent;
  object["snapshot"] = info.snapshot;
  object["unix_ms"] = info.unix_ms;
  object["state_digest"] = info.state_digest.hex();
  object["pages_written"] = info.pages_written;
  object["pages_removed"] = info.pages_removed;
  object["pages_listed"] = info.pages_listed;
  object["bytes_written"] = info.bytes_written;
  object["file_bytes"] = info.file_bytes;
  object["live_bytes"] = info.live_bytes;
  object["dead_bytes"] = info.bytes_written - std::min(info.bytes_written, info.live_bytes);
  if (auto note = parse_note(info.note)) {
    object["note"] = std::move(*note);
  } else {
    object["note"] = info.note;
  }
  return object;
}

std::string note_text(const std::string& note) {
  const auto object = parse_note(note);
  if (!object) return note;
  std::string text;
  for (const auto& field : *object) {
    const boost::json::value& value = field.value();
    if (value.is_structured() || value.is_null()) continue;
    text += text.empty() ? "" : ", ";
    text += std::string_view(field.key());
    text += ' ';
    text += value.is_string() ? std::string(std::string_view(value.get_string()))
                              : boost::json::serialize(value);
  }
  return text;
}

std::string action_note(const storage::PageReader& state, const std::string& action,
                        std::uint64_t from) {
  boost::json::object note{{"action", action}};
  if (from != 0) note["from"] = from;
  const auto head = state.head();
  if (const auto before = head.ok() ? parse_note(head->note) : std::nullopt) {
    for (const auto& field : *before) {
      if (field.key() != "from") note.insert(field);  // keeps what is there already
    }
  }
  return boost::json::serialize(note);
}

}  // namespace perennial::cli
