// SPDX-License-Identifier: Apache-2.0
// What of a folder would survive a power cut: synced bytes, and names whose folder was synced.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "random.h"

namespace perennial::storage::testing {

// Follows the changes of a folder as they are made, and takes the folder back to a state that a
// power cut could have left:
//   - of the bytes of a file that were not synced, none, all or a prefix are there; zeros or
//     garbage may stand for the rest;
//   - of the names made, replaced or taken away since their folder was last synced, either a prefix
//     in time survives (a journal), or any subset (what POSIX allows); changes of one name stay in
//     order, and a rename never takes the old name away without making the new one.
// Changes that it is not told of count as durable when they add a name, and are kept or undone at
// random when they take one away.
//
// Holds a second link to every file in `vault`, a folder of the same file system, so that a removal
// can be undone. Thread-compatible: the caller serialises.
class DiskModel {
 public:
  using Node = std::uint64_t;  // a file or folder; 0: none

  DiskModel(std::filesystem::path root, std::filesystem::path vault);

  // What is on the disk now is durable.
  void reset();

  Node created(const std::string& path);  // a new or emptied file
  Node find(const std::string& path);     // 0 if it was never seen
  void written(Node file, std::uint64_t offset, std::uint64_t bytes);
  void truncated(Node file, std::uint64_t bytes);
  std::uint64_t size(Node file) const;
  void synced(Node file);
  void linked(const std::string& from, const std::string& to);
  void renamed(const std::string& from, const std::string& to);
  void removed(const std::string& path);
  void made_folder(const std::string& path);
  void synced_folder(const std::string& path);

  // Decides what survives if the power fails now. What is changed later does not count.
  void freeze(Random& random);
  // Puts the folder into the state chosen by freeze(), and resets.
  void restore();

 private:
  struct Inode {
    bool folder = false;
    ino_t number = 0;
    std::uint64_t size = 0;
    std::uint64_t durable = 0;
  };
  struct Change {
    std::uint64_t time = 0;
    std::string name;
    Node node = 0;         // 0: the name is taken away
    std::string moved_to;  // of a rename: the folder and name that got the file
    std::string moved_name;
  };
  struct Folder {
    ino_t number = 0;  // another one: the folder was removed and made anew
    std::map<std::string, Node> durable;
    std::map<std::string, Node> current;
    std::vector<Change> pending;
  };
  using Tree = std::map<std::string, std::map<std::string, Node>>;

  Folder& folder_at(const std::string& path);
  bool split(const std::string& path, std::string& folder, std::string& name) const;
  void set(const std::string& folder, const std::string& name, Node node, std::uint64_t time);
  Node adopt(const std::filesystem::path& path);
  void look_for_untold_changes(Random& random);
  bool takes_too_much(
      const Change& change,
      const std::map<std::pair<std::string, std::string>, std::uint64_t>& until) const;
  Tree choose_names(Random& random);
  void choose_bytes(Node node, Random& random);

  std::filesystem::path root_;
  std::filesystem::path vault_;
  std::uint64_t clock_ = 0;
  Node last_node_ = 0;
  std::map<Node, Inode> nodes_;
  std::map<ino_t, Node> by_number_;  // files; the vault keeps their numbers from being used again
  std::map<std::string, Node> folder_nodes_;
  std::map<std::string, Folder> folders_;  // by path relative to the root; "" is the root

  struct Survivor {
    std::uint64_t keep = 0;     // bytes that survive
    std::uint64_t size = 0;     // with the tail
    std::uint64_t garbage = 0;  // seed of the tail's bytes; 0: zeros
  };
  Tree frozen_;
  std::map<Node, Survivor> survivors_;
};

}  // namespace perennial::storage::testing
