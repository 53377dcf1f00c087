// SPDX-License-Identifier: Apache-2.0
// A file descriptor that is closed with its owner.
#pragma once

#include <unistd.h>

#include <utility>

namespace perennial::storage {

struct Descriptor {
  Descriptor() = default;
  ~Descriptor() { (void)close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  // What ::close() returns; 0 where it is closed already.
  int close() { return fd < 0 ? 0 : ::close(std::exchange(fd, -1)); }
  int fd = -1;
};

}  // namespace perennial::storage
