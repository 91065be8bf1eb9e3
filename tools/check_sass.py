"""Check the machine code of the split-attention kernels without a GPU.

    pip install nvidia-cuda-nvdisasm
    python tools/check_sass.py [--architectures 75 90] [--nvdisasm PROGRAM]

Compiles the kernels with nvcc and requires, for each architecture, that no kernel uses local
memory, that the kernels for channels-last tensors read and write 128 bits at once, and that those
that weigh two splits load U before they wait for the attention.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "cpp/src/backends/tensorrt/plugin/split_attention.cu"
INCLUDE = SOURCE.parents[3]
ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
FUNCTION = re.compile(r"^\s*\.text\.(\S+):$", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
WIDE_LOAD = re.compile(r"LDG\.\S*128")
WIDE_STORE = re.compile(r"STG\.\S*128")


def disassemble(architecture: int, nvdisasm: str, folder: Path) -> dict[str, list[str]]:
    """Return the instructions of each kernel, by its mangled name."""
    cubin = folder / f"{architecture}.cubin"
    options = ["-std=c++20", "-O3", f"-arch=sm_{architecture}", f"-I{INCLUDE}", "-cubin"]
    subprocess.run(["nvcc", *options, "-o", str(cubin), str(SOURCE)], check=True)
    text = subprocess.run([nvdisasm, str(cubin)], check=True, capture_output=True, text=True).stdout
    parts = FUNCTION.split(text)
    return {
        name: INSTRUCTION.findall(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def first(instructions: list[str], pattern: re.Pattern[str]) -> int:
    """Return the place of the first instruction that matches, or the number of instructions."""
    places = (i for i, one in enumerate(instructions) if pattern.match(one))
    return next(places, len(instructions))


def faults(name: str, instructions: list[str]) -> list[str]:
    """Return what is wrong with a kernel."""
    found = []
    if any(one.startswith(("LDL", "STL")) for one in instructions):
        found.append("uses local memory")
    if not re.search("channels_last|run_tickets|run_cluster", name) or len(instructions) < 50:
        return found  # kernels for architectures without clusters are empty
    load = first(instructions, WIDE_LOAD)
    if load == len(instructions):
        found.append("does not load 128 bits at once")
    if "run_sum" not in name and first(instructions, WIDE_STORE) == len(instructions):
        found.append("does not store 128 bits at once")
    # Radix 2 without pooling. Loads are predicated on the thread having a pixel.
    if re.search(r"run_weigh_channels_lastI\S+Li2ELb0E", name):
        wait = first(instructions, re.compile(r"BAR\.|ACQBULK"))
        if load > wait:
            found.append("loads U only after it has waited")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--nvdisasm", default="nvdisasm")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for architecture in options.architectures:
            kernels = disassemble(architecture, options.nvdisasm, Path(folder))
            lines = [f"{name}: {what}" for name in kernels for what in faults(name, kernels[name])]
            print(f"sm_{architecture}: {len(kernels)} kernels, {len(lines)} faults", flush=True)
            for line in lines:
                print("   ", line)
            wrong += len(lines)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
