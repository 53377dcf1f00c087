// SPDX-License-Identifier: Apache-2.0
// Small data files that tests write: a folder that vanishes, IDX, NPY, gzip.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "perennial/core/error.h"

namespace perennial::continual {

// A new folder under the system's temporary one, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "perennial-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

inline std::string idx_bytes(const std::vector<std::uint32_t>& dims, const std::string& values) {
  std::string bytes{'\0', '\0', '\x08', static_cast<char>(dims.size())};
  for (const std::uint32_t dim : dims) bytes += big_endian(dim);
  return bytes + values;
}

std::string gzip(const std::string& bytes);

// Version 1 NPY bytes with `header` as the dictionary.
inline std::string npy_bytes(const std::string& header, const std::string& payload) {
  std::string bytes = std::string("\x93NUMPY") + '\x01' + '\0';
  bytes += static_cast<char>(header.size() & 0xFF);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + payload;
}

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// The four files of a data set of 2 x 2 images: image i is filled with i, its label is i % classes.
inline void write_idx_dataset(const TempFolder& folder, const std::string& name, int train,
                              int test, int classes) {
  for (const auto& [part, count] : {std::pair{"train", train}, std::pair{"t10k", test}}) {
    std::string images, labels;
    for (int i = 0; i < count; ++i) {
      images += std::string(4, static_cast<char>(i));
      labels += static_cast<char>(i % classes);
    }
    const auto n = static_cast<std::uint32_t>(count);
    folder.write(name + "/" + part + "-images-idx3-ubyte", idx_bytes({n, 2, 2}, images));
    folder.write(name + "/" + part + "-labels-idx1-ubyte", idx_bytes({n}, labels));
  }
}

// Expects a DataError whose message has every one of `parts` and is one line.
template <class Call>
void expect_data_error(Call call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "no DataError; expected one with '" << parts[0] << "'";
  } catch (const DataError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks '" << part << "'";
    }
  }
}

// Sets an environment variable for a scope (unset when `value` is null).
class ScopedEnvironment {
 public:
  ScopedEnvironment(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) {
      had_ = true;
      before_ = before;
    }
    value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~ScopedEnvironment() { had_ ? ::setenv(name_, before_.c_str(), 1) : ::unsetenv(name_); }
  ScopedEnvironment(const ScopedEnvironment&) = delete;
  ScopedEnvironment& operator=(const ScopedEnvironment&) = delete;

 private:
  const char* name_;
  bool had_ = false;
  std::string before_;
};

}  // namespace perennial::continual
