/// Plan files and mergekit's YAML: whatever the bytes, a plan or one UsageError.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cadre/base/error.h"
#include "cadre/reshape/merge_config.h"
#include "cadre/reshape/plan_file.h"
#include "cadre/reshape/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    cadre::reshape::parse_plan_file(text, "plan");
  } catch (const cadre::UsageError&) {
  }
  try {
    cadre::reshape::parse_merge_config(cadre::reshape::parse_yaml(text, "yaml"), "yaml");
  } catch (const cadre::UsageError&) {
  }
  return 0;
}
