// SPDX-License-Identifier: Apache-2.0
// Packing what tests write.
#include "continual/data/data_files.h"

// GCC 12 sees overlapping copies in Boost's gzip_compressor where there are none (GCC bug 105651).
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ == 12
#pragma GCC diagnostic ignored "-Wrestrict"
#endif

#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <sstream>

namespace perennial::continual {

std::string gzip(const std::string& bytes) {
  std::ostringstream packed;
  boost::iostreams::filtering_ostream out;
  out.push(boost::iostreams::gzip_compressor());
  out.push(packed);
  out << bytes;
  out.reset();
  return packed.str();
}

}  // namespace perennial::continual
