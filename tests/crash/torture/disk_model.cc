// SPDX-License-Identifier: Apache-2.0
// DiskModel: bookkeeping, the choice of what survives, and putting it onto the disk.
#include "disk_model.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

namespace perennial::storage::testing {
namespace fs = std::filesystem;
namespace {

void check(bool done, const fs::path& path) {
  if (!done) throw fs::filesystem_error("torture", path, {errno, std::generic_category()});
}

std::string join(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

}  // namespace

DiskModel::DiskModel(fs::path root, fs::path vault)
    : root_(std::move(root)), vault_(std::move(vault)) {
  reset();
}

bool DiskModel::split(const std::string& path, std::string& folder, std::string& name) const {
  const fs::path relative = fs::path(path).lexically_normal().lexically_relative(root_);
  if (relative.empty() || *relative.begin() == "..") return false;
  folder = relative.parent_path().string();
  name = relative.filename().string();
  return true;
}

// A folder that was removed and made anew, untold, begins empty: what it held is gone with it.
DiskModel::Folder& DiskModel::folder_at(const std::string& path) {
  Folder& folder = folders_[path];
  struct stat status {};
  if (::lstat((root_ / path).c_str(), &status) == 0 && status.st_ino != folder.number) {
    if (folder.number != 0) folder = Folder{};
    folder.number = status.st_ino;
  }
  return folder;
}

// The node of what is at `path`; a file is linked into the vault, and all of it is durable.
DiskModel::Node DiskModel::adopt(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return 0;
  if (S_ISDIR(status.st_mode)) {
    Node& node = folder_nodes_[path.lexically_normal().string()];
    if (node == 0) {
      node = ++last_node_;
      nodes_[node].folder = true;
    }
    return node;
  }
  if (const auto known = by_number_.find(status.st_ino); known != by_number_.end()) {
    return known->second;
  }
  const Node node = ++last_node_;
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  nodes_[node] = {.number = status.st_ino, .size = bytes, .durable = bytes};
  by_number_[status.st_ino] = node;
  check(::link(path.c_str(), (vault_ / std::to_string(node)).c_str()) == 0, path);
  return node;
}

void DiskModel::reset() {
  fs::remove_all(vault_);
  fs::create_directories(vault_);
  nodes_.clear();
  by_number_.clear();
  folder_nodes_.clear();
  folders_.clear();
  frozen_.clear();
  survivors_.clear();
  folder_at("");
  if (!fs::exists(root_)) return;
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    std::string folder;
    std::string name;
    split(entry.path().string(), folder, name);
    const Node node = adopt(entry.path());
    folders_[folder].durable[name] = node;
    folders_[folder].current[name] = node;
    if (entry.is_directory()) folder_at(join(folder, name));
  }
}

void DiskModel::set(const std::string& folder, const std::string& name, Node node,
                    std::uint64_t time) {
  Folder& place = folder_at(folder);
  if (node != 0) {
    place.current[name] = node;
  } else {
    place.current.erase(name);
  }
  place.pending.push_back({time, name, node, "", ""});
}

DiskModel::Node DiskModel::created(const std::string& path) {
  std::string folder;
  std::string name;
  if (!split(path, folder, name)) return 0;
  const Node before = find(path);
  const Node node = adopt(path);
  nodes_[node].size = nodes_[node].durable = 0;
  if (node != before) set(folder, name, node, ++clock_);
  return node;
}

DiskModel::Node DiskModel::find(const std::string& path) {
  std::string folder;
  std::string name;
  if (!split(path, folder, name)) return 0;
  const auto& current = folder_at(folder).current;
  const auto found = current.find(name);
  return found == current.end() ? 0 : found->second;
}

void DiskModel::written(Node file, std::uint64_t offset, std::uint64_t bytes) {
  if (file == 0) return;
  Inode& inode = nodes_[file];
  inode.durable = std::min(inode.durable, offset);
  inode.size = std::max(inode.size, offset + bytes);
}

void DiskModel::truncated(Node file, std::uint64_t bytes) {
  if (file == 0) return;
  nodes_[file].size = bytes;
  nodes_[file].durable = std::min(nodes_[file].durable, bytes);
}

std::uint64_t DiskModel::size(Node file) const {
  const auto found = nodes_.find(file);
  return found == nodes_.end() ? 0 : found->second.size;
}

void DiskModel::synced(Node file) {
  if (file != 0) nodes_[file].durable = nodes_[file].size;
}

void DiskModel::linked(const std::string& from, const std::string& to) {
  std::string folder;
  std::string name;
  if (!split(to, folder, name)) return;
  const Node known = find(from);
  set(folder, name, known != 0 ? known : adopt(to), ++clock_);
}

void DiskModel::renamed(const std::string& from, const std::string& to) {
  std::string folder;
  std::string name;
  std::string to_folder;
  std::string to_name;
  if (!split(from, folder, name) || !split(to, to_folder, to_name)) return;
  const Node known = find(from);
  const std::uint64_t time = ++clock_;
  set(to_folder, to_name, known != 0 ? known : adopt(to), time);
  if (known == 0) return;
  set(folder, name, 0, time);
  folders_[folder].pending.back().moved_to = to_folder;
  folders_[folder].pending.back().moved_name = to_name;
}

void DiskModel::removed(const std::string& path) {
  std::string folder;
  std::string name;
  if (split(path, folder, name) && find(path) != 0) set(folder, name, 0, ++clock_);
}

void DiskModel::made_folder(const std::string& path) {
  std::string folder;
  std::string name;
  if (!split(path, folder, name) || name == "." || find(path) != 0) return;
  set(folder, name, adopt(path), ++clock_);
  folder_at(join(folder, name));
}

void DiskModel::synced_folder(const std::string& path) {
  std::string folder;
  std::string name;
  if (!split(path, folder, name)) return;
  Folder& place = folder_at(name == "." ? "" : join(folder, name));
  const std::vector<Change> changes = std::exchange(place.pending, {});
  for (const Change& change : changes) {
    if (change.node != 0) {
      place.durable[change.name] = change.node;
    } else {
      place.durable.erase(change.name);
    }
    if (change.moved_name.empty()) continue;
    // The other half of a rename into another folder goes with it.
    Folder& other = folders_[change.moved_to];
    std::erase_if(other.pending, [&](const Change& half) {
      if (half.name != change.moved_name || half.time > change.time) return false;
      if (half.node != 0) {
        other.durable[half.name] = half.node;
      } else {
        other.durable.erase(half.name);
      }
      return true;
    });
  }
}

void DiskModel::look_for_untold_changes(Random& random) {
  std::map<std::string, std::map<std::string, Node>> found;
  found[""];
  std::error_code gone;  // the folder itself, when a creation was taken back
  for (const auto& entry : fs::recursive_directory_iterator(root_, gone)) {
    std::string folder;
    std::string name;
    split(entry.path().string(), folder, name);
    found[folder][name] = adopt(entry.path());
    if (entry.is_directory()) found[join(folder, name)], folder_at(join(folder, name));
  }
  for (auto& [path, folder] : folders_) {
    const std::map<std::string, Node>& names = found[path];
    for (const auto& [name, node] : names) {
      const auto known = folder.current.find(name);
      if (known != folder.current.end() && known->second == node) continue;
      std::erase_if(folder.pending, [&name = name](const Change& c) { return c.name == name; });
      folder.current[name] = folder.durable[name] = node;
    }
    std::vector<std::string> gone;
    for (const auto& [name, node] : folder.current) {
      if (!names.contains(name)) gone.push_back(name);
    }
    for (const std::string& name : gone) {
      if (one_in(random, 2)) {
        set(path, name, 0, ++clock_);
      } else {
        std::erase_if(folder.pending, [&](const Change& c) { return c.name == name; });
        folder.durable.erase(name);
        folder.current.erase(name);
      }
    }
  }
}

// Whether `change` cannot survive alone: a rename whose new name does not.
bool DiskModel::takes_too_much(
    const Change& change,
    const std::map<std::pair<std::string, std::string>, std::uint64_t>& until) const {
  if (!change.moved_name.empty()) {
    const auto target = until.find({change.moved_to, change.moved_name});
    if (target != until.end() && target->second < change.time) return true;
  }
  return false;
}

DiskModel::Tree DiskModel::choose_names(Random& random) {
  // For each name the time up to which its changes survive.
  std::map<std::pair<std::string, std::string>, std::uint64_t> until;
  const bool journal = one_in(random, 2);
  std::uint64_t oldest = clock_;
  for (const auto& [path, folder] : folders_) {
    if (!folder.pending.empty()) oldest = std::min(oldest, folder.pending.front().time - 1);
  }
  const std::uint64_t common = oldest + below(random, clock_ - oldest + 1);
  for (const auto& [path, folder] : folders_) {
    std::map<std::string, std::vector<std::uint64_t>> times;
    for (const Change& change : folder.pending) times[change.name].push_back(change.time);
    for (const auto& [name, list] : times) {
      const std::uint64_t kept = below(random, list.size() + 1);
      until[{path, name}] = journal ? common : kept == 0 ? 0 : list[kept - 1];
    }
  }
  for (bool stable = false; !stable;) {
    stable = true;
    for (const auto& [path, folder] : folders_) {
      for (const Change& change : folder.pending) {
        std::uint64_t& kept = until[{path, change.name}];
        if (kept < change.time || !takes_too_much(change, until)) continue;
        kept = change.time - 1;
        stable = false;
      }
    }
  }
  Tree tree;
  for (const auto& [path, folder] : folders_) {
    std::map<std::string, Node>& names = tree[path];
    names = folder.durable;
    for (const Change& change : folder.pending) {
      if (change.time > until[{path, change.name}]) continue;
      if (change.node != 0) {
        names[change.name] = change.node;
      } else {
        names.erase(change.name);
      }
    }
  }
  return tree;
}

void DiskModel::choose_bytes(Node node, Random& random) {
  const Inode& inode = nodes_[node];
  Survivor survivor{inode.durable, inode.durable, 0};
  const std::uint64_t open = inode.size > inode.durable ? inode.size - inode.durable : 0;
  if (open > 0) {
    const std::uint64_t kind = below(random, 5);
    if (kind >= 2) survivor.keep += below(random, open);  // 0: none of them
    survivor.size = survivor.keep;
    if (kind == 1) survivor.keep = survivor.size = inode.size;
    if (kind >= 3) survivor.size += below(random, inode.size - survivor.keep + 1);
    if (kind == 4) survivor.garbage = random() | 1;
  }
  survivors_[node] = survivor;
}

void DiskModel::freeze(Random& random) {
  look_for_untold_changes(random);
  frozen_ = choose_names(random);
  survivors_.clear();
  for (const auto& [node, inode] : nodes_) {
    if (!inode.folder) choose_bytes(node, random);
  }
}

void DiskModel::restore() {
  for (const auto& [node, survivor] : survivors_) {
    if (nodes_[node].durable == nodes_[node].size) continue;
    const fs::path path = vault_ / std::to_string(node);
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    check(file >= 0, path);
    std::string tail(survivor.size - survivor.keep, '\0');
    Random bytes(survivor.garbage);
    if (survivor.garbage != 0) {
      for (char& c : tail) c = static_cast<char>(bytes());
    }
    const bool done = ::ftruncate(file, static_cast<off_t>(survivor.keep)) == 0 &&
                      ::pwrite(file, tail.data(), tail.size(), static_cast<off_t>(survivor.keep)) ==
                          static_cast<ssize_t>(tail.size());
    ::close(file);
    check(done, path);
  }
  const fs::path made = root_.string() + ".after";
  fs::remove_all(made);
  fs::create_directories(made);
  // Folders sort before what is in them; what a lost folder held is lost with it.
  std::set<std::string> there = {""};
  for (const auto& [path, names] : frozen_) {
    if (!there.contains(path)) continue;
    for (const auto& [name, node] : names) {
      const std::string inside = join(path, name);
      if (nodes_[node].folder) {
        fs::create_directories(made / inside);
        there.insert(inside);
      } else {
        const fs::path source = vault_ / std::to_string(node);
        check(::link(source.c_str(), (made / inside).c_str()) == 0, made / inside);
      }
    }
  }
  fs::remove_all(root_);
  fs::rename(made, root_);
  reset();
}

}  // namespace perennial::storage::testing
