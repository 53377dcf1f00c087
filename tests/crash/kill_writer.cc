// SPDX-License-Identifier: Apache-2.0
// The process that the kill test kills: opens a store and commits step after step, reporting each
// acknowledged commit on standard output and its phase in shared memory.
//   kill_writer FOLDER SHARED_DESCRIPTOR
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "kill_steps.h"
#include "rocksdb_store_internal.h"

using namespace perennial::storage;           // NOLINT
using namespace perennial::storage::testing;  // NOLINT

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* memory = ::mmap(nullptr, sizeof(WriterState), PROT_READ | PROT_WRITE, MAP_SHARED,
                        std::atoi(argv[2]), 0);
  if (memory == MAP_FAILED) return 3;
  auto* state = static_cast<WriterState*>(memory);
  StoreSeam seam;
  seam.on_phase = [state](Phase phase) {
    state->phase = static_cast<int>(phase);
    state->entered[static_cast<int>(phase)] += 1;
  };
  auto store =
      open_rocksdb_store_with(argv[1], {.mode = OpenMode::either, .full_table_every = 7}, seam);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().to_string().c_str());
    return 4;
  }
  const auto head = (*store)->head();
  for (std::uint64_t commit = head.ok() ? head->commit + 1 : 1;; ++commit) {
    Model unused;
    Change change(unused);
    make_step(commit, change);
    const std::uint64_t source = restore_source(commit);
    const auto info =
        source != 0 ? (*store)->restore(source, "", "") : (*store)->commit(change.get());
    if (!info.ok()) {
      std::fprintf(stderr, "%s\n", info.status().to_string().c_str());
      return 5;
    }
    if (::write(STDOUT_FILENO, &commit, sizeof(commit)) != sizeof(commit)) return 6;
  }
}
