"""Fuzz the reader of TorchScript and torch.export: see harness.py."""

import atheris

with atheris.instrument_imports(include=["resrt.weights"]):
    from harness import main
    from targets import TARGETS

main(TARGETS["torch_programs"])
