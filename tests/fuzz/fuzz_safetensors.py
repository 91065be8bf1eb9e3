"""Fuzz the reader of safetensors; how, harness.py says."""

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    from harness import main
    from targets import TARGETS

main(TARGETS["safetensors"])
