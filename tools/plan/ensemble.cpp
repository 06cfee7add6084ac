#include "tools/plan/ensemble.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/ensemble/ensemble_file.h"
#include "cadre/ensemble/ensemble_router.h"
#include "cadre/ensemble/model_pool.h"
#include "tools/common/json_text.h"

namespace cadre {
namespace {

using ensemble::EnsembleFile;
using ensemble::ModelPool;

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

struct Row {
  std::string name;
  ModelPool::Need need;
  bool streams;                         ///< its experts do not all fit
  std::vector<std::string> categories;  ///< that it answers
};

std::vector<Row> rows_of(const EnsembleFile& file, const ModelPool& pool) {
  const int64_t room = pool.budget() - pool.process();
  std::vector<Row> rows;
  for (size_t m = 0; m < file.models.size(); ++m) {
    const ModelPool::Need need = pool.need(static_cast<int64_t>(m));
    rows.push_back({file.models[m].name, need, need.resident > room, {}});
    for (const auto& [category, model] : file.categories) {
      if (model == static_cast<int64_t>(m)) rows.back().categories.push_back(category);
    }
  }
  return rows;
}

/// How many stay open together, whichever they are: the largest first.
int64_t open_together(const std::vector<Row>& rows, int64_t room) {
  std::vector<int64_t> sizes;
  for (const Row& row : rows) sizes.push_back(row.need.resident);
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  int64_t count = 0;
  for (const int64_t size : sizes) {
    room -= size;
    if (room < 0) break;
    ++count;
  }
  return std::max<int64_t>(1, count);
}

nlohmann::ordered_json to_json(const EnsembleFile& file, const std::vector<Row>& rows,
                               const ModelPool& pool, int64_t together) {
  nlohmann::ordered_json models = nlohmann::ordered_json::object();
  for (const Row& row : rows) {
    models[row.name] = {{"least", row.need.least},
                        {"resident", row.need.resident},
                        {"streams", row.streams},
                        {"categories", row.categories}};
  }
  return {{"budget", pool.budget()},
          {"process", pool.process()},
          {"open_together", together},
          {"general", file.models[static_cast<size_t>(file.general)].name},
          {"models", models}};
}

void print(const EnsembleFile& file, const std::vector<Row>& rows, const ModelPool& pool,
           int64_t together) {
  Table table({"model", "least", "everything", "answers", ""});
  for (size_t m = 0; m < rows.size(); ++m) {
    const Row& row = rows[m];
    const bool general = static_cast<int64_t>(m) == file.general;
    table.add_row({row.name, bytes_text(row.need.least), bytes_text(row.need.resident),
                   fmt::format("{}{}", fmt::join(row.categories, ", "),
                               general ? " (and what is not sure)" : ""),
                   row.streams ? "streams its experts" : ""});
  }
  table.add_row({"program", bytes_text(pool.process())});
  std::cout << table.str()
            << fmt::format("\n{} of {} models stay open together in {}, whichever they are\n",
                           together, rows.size(), bytes_text(pool.budget()));
}

}  // namespace

void plan_ensemble(const EnsemblePlanRequest& request) {
  const EnsembleFile file = ensemble::read_ensemble_file(request.file);
  const ensemble::EnsembleRouter router(file);  // says what does not fit
  std::vector<std::filesystem::path> paths;
  for (const EnsembleFile::Member& model : file.models) paths.push_back(model.path);
  const ModelPool pool(
      std::move(paths),
      {.memory = request.memory > 0 ? request.memory : file.memory, .context = request.context});
  const std::vector<Row> rows = rows_of(file, pool);
  const int64_t together = open_together(rows, pool.budget() - pool.process());
  if (request.json) {
    std::cout << pretty(to_json(file, rows, pool, together));
  } else {
    print(file, rows, pool, together);
  }
}

}  // namespace cadre
