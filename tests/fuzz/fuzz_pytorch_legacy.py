"""Fuzz the reader of PyTorch's legacy format: see harness.py."""

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    from harness import main
    from targets import TARGETS

main(TARGETS["pytorch_legacy"])
