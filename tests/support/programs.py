"""Builds C++ programs against the installed package, as users do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resrt


def tool(name: str) -> str:
    """Return the path of a build tool from this environment or the system, or skip the test."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"this test requires {name}")
    return found


def run(*command: str | Path, **options: object) -> str:
    """Return the output of a command. If it fails, the test fails with its output."""
    result = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **{"text": True, **options},
    )
    if result.returncode != 0:
        pytest.fail(f"{command} failed:\n{result.stdout}", pytrace=False)
    output: str = result.stdout
    return output


def configure(source: Path, build: Path, *options: str) -> str:
    """Configure a project with CMake, by default for the installed package."""
    return run(
        tool("cmake"),
        *("-S", source, "-B", build, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DCMAKE_CXX_COMPILER={tool('c++')}",
        "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror",
        f"-Dresrt_DIR={resrt.cmake_dir()}",
        *options,
    )


def build(source: Path, folder: Path, needs: str | None = None) -> Path:
    """Copy the sources of a program out of the checkout, build them, and return the build folder.

    Skips the test if CMake does not find the package that the program needs.
    """
    if needs is not None and not _has_package(needs, folder):
        pytest.skip(f"this test requires the development package of {needs}")
    shutil.copytree(source, folder / "source")
    configure(folder / "source", folder / "build")
    run(tool("cmake"), "--build", folder / "build")
    return folder / "build"


def _has_package(name: str, folder: Path) -> bool:
    """Return whether CMake finds a package. It may write files to `folder`."""
    asked = ["--find-package", f"-DNAME={name}", "-DCOMPILER_ID=GNU", "-DLANGUAGE=CXX"]
    command = [tool("cmake"), *asked, "-DMODE=EXIST"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
