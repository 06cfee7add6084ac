# `cmake --install` and what find_package(cadre) needs. Filled in by packaging.
