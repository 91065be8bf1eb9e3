"""`resrt.cmake_dir`: where C++ programs find the library."""

from __future__ import annotations

from pathlib import Path

from resrt import _core


def cmake_dir() -> Path:
    """Return the folder of the CMake package that ships with this Python package.

    A C++ program finds headers and library with it: `cmake -Dresrt_DIR=<this folder>`, and in its
    CMakeLists.txt `find_package(resrt)` and `target_link_libraries(... resrt::resrt)`.
    """
    # In an editable installation, the build installs it in another folder than the sources.
    return Path(_core.__file__).parent / "lib" / "cmake" / "resrt"
