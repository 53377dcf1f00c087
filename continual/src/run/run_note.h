// SPDX-License-Identifier: Apache-2.0
// What the notes of a run's commits carry beside its state: the machine and the length of its
// events.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "perennial/continual/placement.h"
#include "perennial/continual/stream.h"
#include "perennial/core/error.h"
#include "perennial/core/pager_counters.h"
#include "perennial/storage/page_reader.h"
#include "run/run_record.h"

namespace perennial::continual {

// What bits of a run depend on beside its configuration; a device that it computes on, unless that
// is the CPU.
boost::json::object machine(const Placement& placement = {});

// The warning of who takes the CPU because the device has no room.
std::string without_device(const DeviceError& error);

// What events, notes and results tell of the pager.
boost::json::object counters_json(const PagerCounters& counters);

// The note of the newest commit, from the head towards its parents, that has `key`; empty without
// one.
boost::json::object note_with(const storage::PageReader& store, std::string_view key);

// The part of the run's record that a commit with this note has; nothing without a note.
RecordMark record_mark(const boost::json::object& note);
// Puts it there.
void set_record_mark(boost::json::object& note, const RecordMark& mark);

// Throws DataError unless the stream's data set has this digest.
void require_data(const storage::Digest& learnt_from, const Stream& stream);

}  // namespace perennial::continual
