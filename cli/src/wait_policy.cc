// SPDX-License-Identifier: Apache-2.0
// How long this program's threads wait busily for each other before they sleep.
//
// Unless told otherwise, GNU's OpenMP runtime lets a thread that waits spin for milliseconds. Where
// other programs run, it so keeps a processor from the very thread that it waits for: beside two
// busy processes on two cores the demonstration took eight times its time. Spinning for some tens
// of microseconds costs nothing on a quiet machine, where sleeping at once costs a third.
//
// The runtime reads the environment when it is loaded, before main. So what is here runs before any
// library's start-up code, and starts the program anew with the variable set: 8 ms, most of it
// mapping LibTorch once more. A user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
#include <unistd.h>

#include <array>
#include <climits>
#include <cstring>
#include <vector>

// The sanitizers' runtimes start up here, too, and are not ready for what this calls.
#if defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

char spin_count[] = "GOMP_SPINCOUNT=10000";

bool is_set(char** environment, const char* name) {
  const std::size_t length = std::strlen(name);
  for (; *environment != nullptr; ++environment) {
    if (std::strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') return true;
  }
  return false;
}

// If it cannot be started anew, the program goes on as it is: slower on a busy machine, no worse.
void bound_the_spinning(int /*count*/, char** arguments, char** environment) {
  if (is_set(environment, "GOMP_SPINCOUNT") || is_set(environment, "OMP_WAIT_POLICY")) return;
  std::array<char, PATH_MAX> program;
  const ssize_t length = ::readlink("/proc/self/exe", program.data(), program.size() - 1);
  if (length <= 0) return;
  program[static_cast<std::size_t>(length)] = '\0';
  std::vector<char*> with;
  for (char** entry = environment; *entry != nullptr; ++entry) with.push_back(*entry);
  with.push_back(spin_count);
  with.push_back(nullptr);
  ::execve(program.data(), arguments, with.data());
}

[[gnu::section(".preinit_array"), gnu::used]] void (*at_start)(int, char**,
                                                               char**) = bound_the_spinning;

}  // namespace

#endif
