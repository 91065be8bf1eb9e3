"""Fuzz the ONNX reader with atheris (https://github.com/google/atheris).

    python tests/fuzz/fuzz_onnx.py tests/fuzz/corpus/onnx -max_total_time=600

The reader may raise only resrt.Error, and take at most twice the input's size plus 64 MB of memory.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    import resrt
    from resrt import weights
    from resrt.weights.formats import onnx_file

# The networks of the corpus. Their parameters fit into a file of a few kilobytes.
GRAPHS = [
    resrt.build_graph(config, classes=2, input_size=32, name=name)
    for name, config in {
        "basic": resrt.ResNet(depths=[1, 1], block="basic", width=1, stem_channels=1),
        "split": resrt.ResNeSt(depths=[1], width=4, stem_channels=2, radix=2, attention_bias=False),
        "excite": resrt.RegNet(
            depth=2,
            width_initial=8,
            width_slope=8.0,
            width_multiplier=2.0,
            group_width=1,
            stem_channels=2,
            squeeze_excite=True,
        ),
    }.items()
]
FOLDER = tempfile.TemporaryDirectory()
PATH = Path(FOLDER.name) / "model.onnx"
(Path(FOLDER.name) / "data").write_bytes(bytes(4096))
MOST_MEMORY = 64 << 20


def test_one_input(data: bytes) -> None:
    before = _peak_memory()
    with suppress(resrt.Error):
        onnx_file.recognises(memoryview(data))
        checkpoint = onnx_file.read(memoryview(data), str(PATH))
        assert checkpoint.fit is not None
        for graph in GRAPHS:
            with suppress(resrt.Error):
                weights.fit(checkpoint.fit(graph), graph)
    taken = _peak_memory() - before
    if taken > 2 * len(data) + MOST_MEMORY:
        raise MemoryError(f"{len(data)} bytes took {taken} bytes of memory")


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
