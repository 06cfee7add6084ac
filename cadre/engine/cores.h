#pragma once

namespace cadre::engine {

/// Physical cores that this process may run on: two threads of one core share its units and its
/// path to memory. At least 1.
int physical_cores();

}  // namespace cadre::engine
