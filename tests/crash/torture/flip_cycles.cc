// SPDX-License-Identifier: Apache-2.0
// One flipped bit in a file of the store: it is detected, or nothing that the store says changes.
#include <sys/stat.h>

#include <fstream>

#include "session.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;

struct Flip {
  fs::path path;
  std::uint64_t offset = 0;
  unsigned char mask = 0;
};

// Does it, and a second time takes it back.
void flip(const Flip& place) {
  std::fstream file(place.path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(place.offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(place.offset));
  file.put(static_cast<char>(byte ^ place.mask));
  require(file.flush().good(), place.path.string() + " could not be changed");
}

// The tables; or, for one in four, another file whose content matters.
Flip choose(const fs::path& root, Random& random) {
  std::vector<fs::path> tables;
  std::vector<fs::path> others = {root / "FORMAT", root / "db" / "CURRENT"};
  for (const auto& entry : fs::directory_iterator(root / "db")) {
    if (entry.path().extension() == ".sst") tables.push_back(entry.path());
    if (entry.path().filename().string().starts_with("MANIFEST-")) others.push_back(entry.path());
  }
  std::ranges::sort(tables);
  std::ranges::sort(others);
  require(!tables.empty(), "the store has no table files");
  const std::vector<fs::path>& files = one_in(random, 4) ? others : tables;
  Flip place;
  place.path = files[below(random, files.size())];
  const std::uint64_t size = fs::file_size(place.path);
  // As often at the end, where index, properties and footer are, as in the pages.
  const std::uint64_t span = one_in(random, 2) ? std::min<std::uint64_t>(size, 1500) : size;
  place.offset = size - 1 - below(random, span);
  place.mask = static_cast<unsigned char>(1u << below(random, 8));
  return place;
}

// Where the damage showed; nowhere: an empty text.
std::string look(TortureStore& store, bool open_before) {
  if (!open_before) {
    const Status status = store.open(OpenMode::existing);
    if (!status.ok()) {
      const bool right =
          status.code() == StatusCode::corruption || status.code() == StatusCode::version_mismatch;
      require(right, "opening gave another reason: " + status.to_string());
      return "detected by opening";
    }
  }
  const Comparison found = compare(*store.store, store.expected);
  require(found.match != Match::different, "a flipped bit was believed: " + found.why);
  const std::string failure = verify_failure(*store.store);
  if (found.match == Match::unreadable) {
    require(!failure.empty(), "a read failed that verify knows nothing of: " + found.why);
    return "detected by a read";
  }
  return failure.empty() ? "" : "detected by verify";
}

}  // namespace

void run_flip_session(const Session& session) {
  Random random(session.seed);
  TortureStore store(session);
  const Status created = store.open();
  require(created.ok(), "creating: " + created.to_string());
  for (std::uint64_t cycle = 0; cycle < session.cycles; ++cycle) {
    for (std::uint64_t steps = 1 + below(random, 3); steps > 0; --steps) store.take_step();
    const bool open_before = one_in(random, 3);
    if (!open_before) store.close();
    const Flip place = choose(session.store(), random);
    const std::string where =
        place.path.filename().string() + ", byte " + std::to_string(place.offset);
    const bool table = place.path.extension() == ".sst";
    flip(place);
    const std::string detected = look(store, open_before);
    // verify() digests whole table files, so none of their bytes is dead.
    require(!table || !detected.empty(), where + ": the flipped bit was not detected");
    session.count(detected.empty() ? "not detected, and nothing differs" : detected, 1);
    store.close();
    // Opening for writing may have replaced the manifest.
    if (fs::exists(place.path)) flip(place);
    const Status status = store.open(OpenMode::existing);
    require(status.ok(), where + ", flipped back: " + status.to_string());
    store.require_expected(where + ", flipped back");
    store.require_sound(where + ", flipped back");
    session.cycle_done();
  }
}

}  // namespace perennial::storage::testing
