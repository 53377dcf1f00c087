// SPDX-License-Identifier: Apache-2.0
// Status and Result<T>: how the storage layer reports success and failure.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace perennial::storage {

enum class StatusCode {
  ok,
  not_found,         // what was asked for does not exist
  corruption,        // bytes are not what was written; the message names file and page
  version_mismatch,  // written by a newer (or unknown) format
  io_error,          // the operating system or RocksDB refused
  invalid_argument,  // the caller's mistake; nothing was touched
  busy,              // another process holds the store; the message names it
  no_space,          // the file system is full
};

// The lower-case name of a code, as messages print it.
std::string_view to_string(StatusCode code);

// Success, or a code and a message that carries path, id, expected and found. Immutable value.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "corruption: page ..." or "ok".
  std::string to_string() const;

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

// A value, or the Status that says why there is none (never an ok Status).
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}                                  // NOLINT
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & {
    assert(ok());
    return *value_;
  }
  const T& value() const& {
    assert(ok());
    return *value_;
  }
  T&& value() && {
    assert(ok());
    return std::move(*value_);
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace perennial::storage
