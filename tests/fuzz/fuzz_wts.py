"""Fuzz the reader of wts; how, harness.py says."""

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    from harness import main
    from targets import TARGETS

main(TARGETS["wts"])
