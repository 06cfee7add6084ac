#include "tools/common/verbs.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {

const Verb& verb_named(std::string_view name) {
  const auto* found = std::find_if(kVerbs.begin(), kVerbs.end(),
                                   [&](const Verb& verb) { return verb.name == name; });
  if (found != kVerbs.end()) return *found;
  std::vector<std::string> names;
  for (const Verb& verb : kVerbs) names.emplace_back(verb.name);
  throw UsageError("unknown verb '{}'{} (cadre --help lists them)", name,
                   did_you_mean(name, names));
}

}  // namespace cadre
