"""Writes classes that implement interfaces of TensorRT's NvInferImpl.h by ending the program.

A stand-in derives from them and overrides what is needed, whatever else a version's headers have.
"""

import re
import sys
from pathlib import Path


def unneeded(header: str, interface: str) -> str:
    """The class of one interface: each of its pure virtual functions says its name and aborts."""
    body = re.search(rf"class {interface} : public VRoot\s*{{(.*?)^}};", header, re.S | re.M)
    if body is None:
        sys.exit(f"the header has no class {interface}")
    lines = [f"class Unneeded{interface[1:]} : public apiv::{interface} {{", " public:"]
    for declaration in re.findall(r"virtual\s([^;]*?)\s*=\s*0;", body[1]):
        name = re.search(r"(\w+)\(", declaration)[1]
        # Not "override": some are only there with a feature that the header asks for.
        lines.append(f'  {declaration} {{ end("{interface}::{name}"); }}')
    return "\n".join([*lines, "};", ""])


def main(path: str, output: str, *interfaces: str) -> None:
    """Reads `path`, a NvInferImpl.h, and writes the header `output`."""
    header = re.sub(r"//[^\n]*", "", Path(path).read_text(encoding="utf-8"))
    parts = [
        "#pragma once",
        "#pragma GCC system_header",
        "#include <NvInferRuntime.h>",
        "#include <cstdio>",
        "#include <cstdlib>",
        "namespace resrt::stand_in {",
        "using namespace nvinfer1;",
        "[[noreturn]] inline void end(const char* name) {",
        '  std::fprintf(stderr, "the stand-in has no %s\\n", name);',
        "  std::abort();",
        "}",
        *(unneeded(header, interface) for interface in interfaces),
        "}  // namespace resrt::stand_in",
        "",
    ]
    Path(output).write_text("\n".join(parts), encoding="utf-8")


main(*sys.argv[1:])
