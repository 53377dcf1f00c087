// SPDX-License-Identifier: Apache-2.0
// report.html: a page about one run, or about several side by side, in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "perennial/continual/run_folder.h"
#include "perennial/continual/tables.h"

namespace perennial::continual {

// A page without scripts or anything from elsewhere (style and figures are inline; a content
// security policy forbids the rest), for desktop, phone and print, light or dark as the reader has
// it. Runs that differ in nothing but seeds (data sets are settings) are one row, with mean and
// spread over them, and names say in what rows differ; a folder
// that repeats another one's configuration and seeds is counted once. The page has what the runs
// recorded: accuracy matrices, anytime curves, forgetting by experience, growth, memory and time,
// routing drift, the comparison of strategies with error bars, the settings, and the commands that
// learn the same again; and before these, `tables`. Text is escaped. Throws InvalidOptions without
// runs.
std::string report_html(const std::vector<RunFolder>& runs,
                        const std::vector<TextTable>& tables = {});

// The same groups of runs, for tables: a row a strategy (with what tells it from others of the same
// name), each metric's values over seeds, and "seconds", the training time of all experiences.
std::vector<ResultRow> result_rows(const std::vector<RunFolder>& runs);

// Writes text to a file whole: beside it under another name first. Throws Error when the disk
// refuses.
void replace_file(const std::filesystem::path& file, const std::string& text);

// Reads a run's folder and puts report.html into it. Throws DataError, Error.
void write_run_report(const std::filesystem::path& folder);

}  // namespace perennial::continual
