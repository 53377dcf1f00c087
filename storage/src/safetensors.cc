// SPDX-License-Identifier: Apache-2.0
// Safetensors files on disk: opening and checking, reading parts, writing under another name first.
#include "perennial/storage/safetensors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <system_error>
#include <utility>

#include "byte_codec.h"
#include "descriptor.h"
#include "os_error.h"
#include "safetensors_header.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// Makes the name of a file durable.
Status sync_folder_of(const fs::path& path) {
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return os_error(parent, errno);
  const int failed = ::fsync(fd) == 0 ? 0 : errno;
  ::close(fd);
  return failed == 0 ? Status() : os_error(parent, failed);
}

Status about(const fs::path& path, const Status& status) {
  return error(status.code(), path.string(), ": ", status.message());
}

Status exists_already(const fs::path& path) {
  return error(StatusCode::invalid_argument, path.string(), " exists already");
}

Status read_at(int fd, const fs::path& path, std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return os_error(path, errno);
    if (count == 0) return error(StatusCode::corruption, path.string(), " ends at ", offset);
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

// Renames without ever replacing a file.
Status rename_new(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno == EEXIST) return exists_already(to);
  if (errno != EINVAL && errno != ENOSYS) return os_error(to, errno);
  // A file system without that flag; looking first leaves the instant in between.
  std::error_code code;
  if (fs::exists(fs::symlink_status(to, code))) return exists_already(to);
  if (::rename(from.c_str(), to.c_str()) != 0) return os_error(to, errno);
  return {};
}

}  // namespace

struct SafetensorsReader::Impl {
  Descriptor file;
  fs::path path;
  std::uint64_t data_begin = 0;
  SafetensorsHeader header;
  std::map<std::string_view, const TensorInfo*> by_name;
};

SafetensorsReader::SafetensorsReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsReader::~SafetensorsReader() = default;

Result<std::unique_ptr<SafetensorsReader>> SafetensorsReader::open(const fs::path& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  // O_NONBLOCK: a pipe is refused below instead of waited for.
  impl->file.fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (impl->file.fd < 0) return os_error(path, errno);
  struct stat status {};
  if (::fstat(impl->file.fd, &status) != 0) return os_error(path, errno);
  if (!S_ISREG(status.st_mode)) {
    return error(StatusCode::invalid_argument, path.string(), " is no regular file");
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  std::array<std::byte, 8> prefix{};
  if (size < prefix.size()) {
    return error(StatusCode::corruption, path.string(), " is no safetensors file: it has ", size,
                 " bytes");
  }
  if (Status read = read_at(impl->file.fd, path, 0, prefix); !read.ok()) return read;
  const std::uint64_t length = ByteReader(prefix).u64();
  if (length > std::min(size - prefix.size(), kMaxSafetensorsHeader)) {
    return error(StatusCode::corruption, path.string(), " is no safetensors file: a header of ",
                 length, " bytes in a file of ", size, "; allowed: ", kMaxSafetensorsHeader);
  }
  std::string text(length, '\0');
  if (Status read =
          read_at(impl->file.fd, path, prefix.size(), std::as_writable_bytes(std::span(text)));
      !read.ok()) {
    return read;
  }
  impl->data_begin = prefix.size() + length;
  auto header = parse_safetensors_header(text, size - impl->data_begin);
  if (!header.ok()) return about(path, header.status());
  impl->header = std::move(*header);
  for (const TensorInfo& tensor : impl->header.tensors) impl->by_name[tensor.name] = &tensor;
  return std::unique_ptr<SafetensorsReader>(new SafetensorsReader(std::move(impl)));
}

const fs::path& SafetensorsReader::path() const { return impl_->path; }
const std::vector<TensorInfo>& SafetensorsReader::tensors() const { return impl_->header.tensors; }
const SafetensorsMetadata& SafetensorsReader::metadata() const { return impl_->header.metadata; }

const TensorInfo* SafetensorsReader::find(std::string_view name) const {
  const auto found = impl_->by_name.find(name);
  return found == impl_->by_name.end() ? nullptr : found->second;
}

Status SafetensorsReader::read(std::string_view name, std::uint64_t offset,
                               std::span<std::byte> out) const {
  const TensorInfo* const tensor = find(name);
  if (tensor == nullptr) {
    return error(StatusCode::not_found, impl_->path.string(), " has no tensor '", name, "'");
  }
  if (offset > tensor->bytes || out.size() > tensor->bytes - offset) {
    return error(StatusCode::invalid_argument, impl_->path.string(), ": ", out.size(),
                 " bytes from ", offset, " of tensor '", name, "', which has ", tensor->bytes);
  }
  return read_at(impl_->file.fd, impl_->path, impl_->data_begin + tensor->offset + offset, out);
}

struct SafetensorsWriter::Impl {
  ~Impl() { remove_part(); }

  void remove_part() {
    if (file.fd < 0) return;
    (void)file.close();
    ::unlink(part.c_str());
  }
  // Ends the writer: every later call answers with this status.
  Status fail(Status status) {
    remove_part();
    return outcome = std::move(status);
  }
  Status write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(file.fd, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return fail(os_error(part, errno));
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return {};
  }

  fs::path path, part;
  Descriptor file;  // open while there is a part file
  std::uint64_t left = 0;
  Status outcome;
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsWriter::~SafetensorsWriter() = default;

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const fs::path& path, const std::vector<TensorSpec>& tensors,
    const SafetensorsMetadata& metadata) {
  auto header = safetensors_header_text(tensors, metadata);
  if (!header.ok()) return about(path, header.status());
  ByteWriter prefix;
  prefix.u64(header->text.size());
  const auto limit = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  if (header->data_bytes > limit - prefix.bytes().size() - header->text.size()) {
    return error(StatusCode::invalid_argument, path.string(), ": ", header->data_bytes,
                 " bytes of tensors fit no file");
  }
  std::error_code code;
  if (fs::exists(fs::symlink_status(path, code))) return exists_already(path);
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->part = path.string() + ".part";
  impl->left = header->data_bytes;
  impl->file.fd = ::open(impl->part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (impl->file.fd < 0 && errno == EEXIST) {
    return error(StatusCode::invalid_argument, impl->part.string(),
                 " exists already: another writer is at work, or was killed and it can be deleted");
  }
  if (impl->file.fd < 0) return os_error(impl->part, errno);
  Status written = impl->write(prefix.bytes());
  if (written.ok()) written = impl->write(std::as_bytes(std::span(header->text)));
  if (!written.ok()) return written;
  return std::unique_ptr<SafetensorsWriter>(new SafetensorsWriter(std::move(impl)));
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (!impl_->outcome.ok()) return impl_->outcome;
  if (impl_->file.fd < 0) {
    return error(StatusCode::invalid_argument, impl_->path.string(), " is finished");
  }
  if (bytes.size() > impl_->left) {
    return impl_->fail(error(StatusCode::invalid_argument, impl_->path.string(), ": ",
                             bytes.size() - impl_->left, " bytes more than its tensors have"));
  }
  impl_->left -= bytes.size();
  return impl_->write(bytes);
}

Status SafetensorsWriter::finish() {
  Impl& impl = *impl_;
  if (!impl.outcome.ok()) return impl.outcome;
  if (impl.file.fd < 0) {
    return error(StatusCode::invalid_argument, impl.path.string(), " is finished");
  }
  if (impl.left != 0) {
    return impl.fail(error(StatusCode::invalid_argument, impl.path.string(), ": ", impl.left,
                           " bytes of its tensors are missing"));
  }
  if (::fsync(impl.file.fd) != 0) return impl.fail(os_error(impl.part, errno));
  if (Status renamed = rename_new(impl.part, impl.path); !renamed.ok()) return impl.fail(renamed);
  impl.part = impl.path;  // what a failure would remove from here on
  if (Status synced = sync_folder_of(impl.path); !synced.ok()) return impl.fail(synced);
  if (impl.file.close() != 0) {
    const int number = errno;
    ::unlink(impl.path.c_str());
    return impl.fail(os_error(impl.path, number));
  }
  return {};
}

}  // namespace perennial::storage
