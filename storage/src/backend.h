// SPDX-License-Identifier: Apache-2.0
// Backend: what VersionedStore needs of a place that keeps commits: ordered keys, added one whole
// commit at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

class Backend {
 public:
  using Visit = std::function<Status(std::span<const std::byte>)>;

  virtual ~Backend() = default;

  // Calls `visit` with the value of a key and returns its result; not_found, corruption, io_error.
  // May be called from several threads at once while no other member runs.
  virtual Status get(const std::string& key, const Visit& visit) const = 0;

  // The newest commit, 0 if there is none; commits 1 .. last are all there.
  virtual std::uint64_t last_commit() const = 0;
  // The file that holds a commit, as messages name it, and its size.
  virtual std::string file_of(std::uint64_t commit) const = 0;
  virtual std::uint64_t file_bytes(std::uint64_t commit) const = 0;

  // Starts commit last + 1, of about `bytes`. no_space before anything is written.
  virtual Status begin(std::uint64_t commit, std::uint64_t bytes) = 0;
  // Adds a key, larger than all before, with the value head + body.
  virtual Status put(const std::string& key, std::span<const std::byte> head,
                     std::span<const std::byte> body) = 0;
  // Makes the commit durable. When it fails, the commit is not there, unless closed() says that
  // even looking failed: then it is unknown until reopen().
  virtual Status publish() = 0;
  // Drops what begin() started; nothing if there is nothing.
  virtual void abandon() = 0;

  // True after a failure that could not be looked into. reopen() tries again; the state must then
  // be loaded anew.
  virtual bool closed() const = 0;
  virtual Status reopen() = 0;
  virtual std::uint64_t reopens() const = 0;

  // Reads every byte of every file and adds what is broken.
  virtual void verify_files(std::vector<Damage>& damage) const = 0;

  virtual std::filesystem::path scratch_folder() const = 0;
  virtual Result<std::uint64_t> size_bytes() const = 0;
};

}  // namespace perennial::storage
