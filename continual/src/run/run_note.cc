// SPDX-License-Identifier: Apache-2.0
// Notes of a run's commits.
#include "run/run_note.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <map>

#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;

json::object machine(const Placement& placement) {
  json::object machine{{"threads", at::get_num_threads()}, {"cpu", at::get_cpu_capability()}};
  if (!placement.device.is_cpu()) {
    machine["device"] = placement.name.empty() ? placement.device.str() : placement.name;
  }
  return machine;
}

std::string without_device(const DeviceError& error) {
  return std::string("computing on the CPU: ") + error.what();
}

json::object counters_json(const PagerCounters& counters) {
  return {{"hits", counters.hits},
          {"misses", counters.initialised + counters.read + counters.unspilled},
          {"initialised", counters.initialised},
          {"read", counters.read},
          {"read_bytes", counters.read_bytes},
          {"unspilled", counters.unspilled},
          {"prefetched", counters.prefetched},
          {"prefetch_hits", counters.prefetch_hits},
          {"evicted", counters.evicted},
          {"spilled", counters.spilled},
          {"copied_on_write", counters.copied_on_write},
          {"waits", counters.waits},
          {"wait_ms", static_cast<double>(counters.wait_ns) / 1e6},
          {"resident_bytes", counters.resident_bytes},
          {"peak_bytes", counters.peak_bytes},
          {"spill_peak_bytes", counters.spill_peak_bytes}};
}

json::object note_with(const storage::PageReader& store, std::string_view key) {
  std::map<std::uint64_t, storage::CommitInfo> commits;
  for (storage::CommitInfo& info : store.log()) commits[info.commit] = std::move(info);
  const storage::Result<storage::CommitInfo> head = store.head();
  for (std::uint64_t at = head.ok() ? head->commit : 0; commits.contains(at);
       at = commits.at(at).parent) {
    boost::system::error_code error;
    const json::value note = json::parse(commits.at(at).note, error);
    if (!error && note.is_object() && note.get_object().contains(key)) return note.get_object();
  }
  return {};
}

RecordMark record_mark(const json::object& note) {
  RecordMark mark;
  if (const json::value* bytes = note.if_contains("events_bytes")) {
    mark.bytes = json::value_to<std::uint64_t>(*bytes);
  }
  if (const json::value* digest = note.if_contains("events_digest")) {
    mark.digest = json::value_to<std::string>(*digest);
  }
  return mark;
}

void set_record_mark(json::object& note, const RecordMark& mark) {
  note["events_bytes"] = mark.bytes;
  note["events_digest"] = mark.digest;
}

void require_data(const storage::Digest& learnt_from, const Stream& stream) {
  if (learnt_from == stream.data_digest()) return;
  throw DataError("the data set is not the one the store's run was started on");
}

}  // namespace perennial::continual
