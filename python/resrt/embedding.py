"""For C++ programs: where the library is that they link."""

from __future__ import annotations

from pathlib import Path

from resrt import _core


def cmake_dir() -> Path:
    """Return the folder of the CMake package that ships with this one.

    A C++ program finds headers and library by it: `cmake -Dresrt_DIR=<this folder>`, and in its
    CMakeLists.txt `find_package(resrt)` and `target_link_libraries(... resrt::resrt)`.
    """
    # Where the build installs; where the package is installed to be edited, not beside its sources.
    return Path(_core.__file__).parent / "lib" / "cmake" / "resrt"
