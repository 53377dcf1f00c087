// SPDX-License-Identifier: Apache-2.0
// Reads /proc.
#include "machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace perennial::bench {
namespace fs = std::filesystem;
namespace {

// What follows "KEY : " in /proc/cpuinfo.
std::string cpu_field(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with(key) && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

struct Mount {
  std::string device;
  std::string type;
};
// The mount with the longest folder that `folder` is in.
Mount mount_of(const fs::path& folder) {
  std::error_code error;
  const std::string path = fs::weakly_canonical(folder, error).string() + "/";
  std::ifstream file("/proc/self/mounts");
  Mount best;
  std::size_t longest = 0;
  std::string device, at, type, rest;
  while (file >> device >> at >> type && std::getline(file, rest)) {
    const std::string prefix = at == "/" ? at : at + "/";
    if (path.starts_with(prefix) && prefix.size() >= longest) {
      longest = prefix.size();
      best = {device, type};
    }
  }
  return best;
}

}  // namespace

boost::json::object describe_machine(const fs::path& folder) {
  boost::json::object machine;
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) machine[key] = value;
  };
  add("cpu", cpu_field("model name"));
  machine["cores"] = std::thread::hardware_concurrency();
  const double pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES));
  machine["memory_gib"] = static_cast<std::int64_t>(
      pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 30) + 0.5);
  struct utsname system {};
  if (::uname(&system) == 0) add("kernel", std::string(system.sysname) + " " + system.release);
  const Mount mount = mount_of(folder);
  add("file_system", mount.type);
  add("disk", mount.device);
  double load = 0;
  if (::getloadavg(&load, 1) == 1) machine["load"] = load;
  return machine;
}

}  // namespace perennial::bench
