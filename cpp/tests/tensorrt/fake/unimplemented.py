"""Generates classes that implement interfaces of TensorRT's NvInferImpl.h by aborting.

The fakes derive from them and override what they need, whatever else a version's headers declare.
"""

import re
import sys
from pathlib import Path


def unimplemented(header: str, interface: str) -> str:
    """Return the class of an interface. Its pure virtual functions print their name and abort."""
    body = re.search(rf"class {interface} : public VRoot\s*{{(.*?)^}};", header, re.S | re.M)
    if body is None:
        sys.exit(f"the header has no class {interface}")
    lines = [f"class Unimplemented{interface[1:]} : public apiv::{interface} {{", " public:"]
    for declaration in re.findall(r"virtual\s([^;]*?)\s*=\s*0;", body[1]):
        name = re.search(r"(\w+)\(", declaration)[1]
        # Not marked "override", because some exist only if the header enables a feature.
        lines.append(f'  {declaration} {{ end("{interface}::{name}"); }}')
    return "\n".join([*lines, "};", ""])


def main(path: str, output: str, *interfaces: str) -> None:
    """Read `path`, an NvInferImpl.h, and write the header `output`."""
    header = re.sub(r"//[^\n]*", "", Path(path).read_text(encoding="utf-8"))
    parts = [
        "#pragma once",
        "#pragma GCC system_header",
        "#include <NvInferRuntime.h>",
        "#include <cstdio>",
        "#include <cstdlib>",
        "namespace resrt::fake {",
        "using namespace nvinfer1;",
        "[[noreturn]] inline void end(const char* name) {",
        '  std::fprintf(stderr, "the fake does not implement %s\\n", name);',
        "  std::abort();",
        "}",
        *(unimplemented(header, interface) for interface in interfaces),
        "}  // namespace resrt::fake",
        "",
    ]
    Path(output).write_text("\n".join(parts), encoding="utf-8")


main(*sys.argv[1:])
