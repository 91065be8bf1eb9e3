"""Fuzz the reader of Paddle's .pdiparams with atheris (https://github.com/google/atheris).

    python tests/fuzz/fuzz_pdiparams.py -max_total_time=600

The first byte of an input says which of the two files it replaces, the program or the parameters.
The reader may raise only resrt.Error, and take at most twice the inputs' size plus 64 MB of memory.
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

SAMPLES = Path(__file__).parents[1] / "data" / "weights"
PARAMETERS = (SAMPLES / "paddle_json.pdiparams").read_bytes()
PROGRAM = (SAMPLES / "paddle_json.json").read_bytes()
GRAPH = resrt.build_graph(
    resrt.ResNet(
        depths=[1, 1],
        block="basic",
        width=8,
        stem="deep",
        stem_channels=8,
        downsample="average_pool",
        project_first=True,
        attention="squeeze_excite",
        attention_reduction=4,
        attention_divisor=1,
    ),
    classes=5,
)
FOLDER = tempfile.TemporaryDirectory()
MODEL = Path(FOLDER.name) / "model.pdiparams"
MOST_MEMORY = 64 << 20


def test_one_input(data: bytes) -> None:
    is_program = data[:1] == b"p"
    MODEL.write_bytes(PARAMETERS if is_program else data[1:])
    MODEL.with_suffix(".json").write_bytes(data[1:] if is_program else PROGRAM)
    before = _peak_memory()
    with suppress(resrt.Error):
        checkpoint = weights.read(MODEL)
        if checkpoint.fit is not None:
            weights.fit(checkpoint.fit(GRAPH), GRAPH)
    taken = _peak_memory() - before
    most = 2 * (len(data) + len(PARAMETERS) + len(PROGRAM)) + MOST_MEMORY
    if taken > most:
        raise MemoryError(f"{len(data)} bytes took {taken} bytes of memory")


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    # Besides the folders that the command line names, begin with the samples.
    for kind, content in (
        (b"p", PROGRAM),
        (b"p", (SAMPLES / "paddle_pdmodel.pdmodel").read_bytes()),
        (b"w", PARAMETERS),
    ):
        corpus = Path(FOLDER.name) / "corpus"
        corpus.mkdir(exist_ok=True)
        (corpus / f"{len(content)}").write_bytes(kind + content)
    atheris.Setup([*sys.argv, str(Path(FOLDER.name) / "corpus")], test_one_input)
    atheris.Fuzz()
