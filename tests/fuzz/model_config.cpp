// Any bytes as config.json: a model's configuration, which read again is itself, or one error.

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto config = cadre::parse_model_config(cadre::parse_json(text, "config"), "config");
    const auto written = cadre::to_json(config);
    if (cadre::to_json(cadre::parse_model_config(written, "written")) != written) std::abort();
    cadre::count_parameters(config);
  } catch (const cadre::FormatError&) {
  } catch (const cadre::UsageError&) {
  }
  return 0;
}
