// SPDX-License-Identifier: Apache-2.0
// The exceptions of core and continual.
#pragma once

#include <stdexcept>
#include <string>

#include "perennial/storage/status.h"

namespace perennial {

// Base of everything the library throws itself. The message is one line.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An option, or a combination of options, that cannot work. Thrown before any work starts.
class InvalidOptions : public Error {
 public:
  using Error::Error;
};

// The store refused; carries the storage layer's code.
class StorageError : public Error {
 public:
  explicit StorageError(const storage::Status& status)
      : Error(status.message()), code_(status.code()) {}
  storage::StatusCode code() const { return code_; }

 private:
  storage::StatusCode code_;
};

// A device that is not there, too small, or failed. Nothing was lost that the store has.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// Input data that is missing, truncated, mislabelled or of the wrong shape.
class DataError : public Error {
 public:
  using Error::Error;
};

// The value of a result, or its status thrown as StorageError.
template <class T>
T value_or_throw(storage::Result<T> result) {
  if (!result.ok()) throw StorageError(result.status());
  return std::move(result).value();
}
inline void throw_if_failed(const storage::Status& status) {
  if (!status.ok()) throw StorageError(status);
}

}  // namespace perennial
