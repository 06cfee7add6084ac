#include "tools/common/stored_tensors.h"

#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;
using engine::StoredTensor;

struct Sums {
  std::set<std::string_view> types;
  int64_t tensors = 0, before = 0, after = 0;
  double squared_error = 0, squared_sum = 0;

  void add(const StoredTensor& tensor) {
    types.insert(kernels::block_info(tensor.to).name);
    ++tensors;
    before += tensor.bytes_before;
    after += tensor.bytes_after;
    squared_error += tensor.squared_error;
    squared_sum += tensor.squared_sum;
  }
  double relative_error() const {
    return squared_sum > 0 ? std::sqrt(squared_error / squared_sum) : 0;
  }
};

std::string size_text(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

std::vector<std::string> row_of(const std::string& role, const Sums& sums) {
  return {role,
          fmt::format("{}", fmt::join(sums.types, " ")),
          std::to_string(sums.tensors),
          size_text(sums.before),
          size_text(sums.after),
          fmt::format("{:.3g} %", 100 * sums.relative_error())};
}

Json json_of(const Sums& sums) {
  return {{"types", sums.types},
          {"tensors", sums.tensors},
          {"bytes_before", sums.before},
          {"bytes_after", sums.after},
          {"relative_error", sums.relative_error()}};
}

}  // namespace

void print_stored(const std::vector<StoredTensor>& tensors, const StoredReport& report) {
  std::map<std::string, Sums> roles;
  Sums total;
  for (const StoredTensor& tensor : tensors) {
    roles[engine::role_of(tensor.name)].add(tensor);
    total.add(tensor);
  }
  if (report.json) {
    Json json = {{"input", report.input.string()}, {"output", report.output.string()}};
    json["total"] = json_of(total);
    for (const auto& [role, sums] : roles) json["roles"][role] = json_of(sums);
    json["notes"] = report.notes;
    if (report.perplexity)
      json["perplexity"] = {{"before", report.perplexity->first},
                            {"after", report.perplexity->second}};
    std::cout << pretty(json);
    return;
  }
  Table table({"role", "types", "tensors", "before", "after", "error"});
  for (const auto& [role, sums] : roles) table.add_row(row_of(role, sums));
  table.add_row(row_of("total", total));
  std::cout << table.str()
            << fmt::format(
                   "wrote {}: {}\n", report.output.string(),
                   size_text(static_cast<int64_t>(std::filesystem::file_size(report.output))));
  if (report.perplexity)
    std::cout << fmt::format("perplexity {:.4f} before, {:.4f} after\n", report.perplexity->first,
                             report.perplexity->second);
}

void print_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::cerr << "note: " << note << '\n';
}

void refuse_same_file(const std::filesystem::path& input, const std::filesystem::path& output) {
  std::error_code ignored;
  if (std::filesystem::equivalent(input, output, ignored))
    throw UsageError("{} and {} are the same: give the output a name of its own", input.string(),
                     output.string());
}

}  // namespace cadre
