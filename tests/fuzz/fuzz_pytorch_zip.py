"""Fuzz the reader of pytorch, zip; how, harness.py says."""

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    from harness import main
    from targets import TARGETS

main(TARGETS["pytorch_zip"])
