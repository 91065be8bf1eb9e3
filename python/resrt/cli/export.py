"""`resrt export`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from resrt.cli.arguments import (
    CALIBRATION,
    INVALID_ARGUMENT,
    NETWORK,
    add_preprocessing,
    add_shared,
    calibration,
    check_output,
    count,
    model,
    preprocessing,
)
from resrt.cli.tables import preprocessing_row
from resrt.cli.terminal import waiting

if TYPE_CHECKING:
    from resrt import Exported

SUMMARY = "write a network as an ONNX file"
DESCRIPTION = (
    "Writes a network and its weights as an ONNX file, from its layer definitions, for other "
    "libraries to run. Before it is written, ONNX's checker validates it, and ONNX Runtime, if "
    "installed, must compute the same logits as resrt."
)
EXAMPLE = "resrt export ResNeSt50 -o resnest50.onnx"
MISUSE = INVALID_ARGUMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, *NETWORK)
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_shared(parser, "--overwrite")
    parser.add_argument(
        "--batch",
        type=_batch,
        default="dynamic",
        metavar="N|dynamic",
        help="the only batch size that the file accepts, or dynamic for any; default: %(default)s",
    )
    parser.add_argument("--opset", type=count, default=17, help="default: %(default)s")
    parser.add_argument(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="fold batch normalisations into convolutions; libraries do so themselves",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="verify it with ONNX Runtime; default: if it is installed",
    )
    add_shared(parser, "--classes", "--in-channels", "--labels", "--key", "--outputs", *CALIBRATION)
    add_preprocessing(parser)


def _batch(text: str) -> int | None:
    return None if text == "dynamic" else count(text)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    network = model(options)
    check_output(options, options.output)
    ranges = calibration(options)
    with waiting(f"exporting {options.network or options.config}", quiet=options.quiet) as progress:
        exported = resrt.export(
            network,
            options.output,
            options.weights,
            batch=options.batch,
            opset=options.opset,
            fold=options.fold,
            verify=options.verify,
            input_size=options.input_size,
            classes=options.classes,
            in_channels=options.in_channels,
            labels=options.labels,
            preprocessing=preprocessing(options),
            key=options.key,
            outputs=options.outputs,
            calibration=ranges,
            progress=progress,
        )
    if not options.quiet:
        for name, value in _rows(exported):
            print(f"{name:<9} {value}")


def _rows(exported: Exported) -> list[tuple[str, str]]:
    batch = "N" if exported.batch is None else str(exported.batch)
    shape = " x ".join([batch, *map(str, exported.input_shape)])
    outputs = ", ".join(
        " ".join([name, " x ".join([batch, *map(str, shape)])])
        for name, shape in exported.outputs.items()
    )
    if exported.verified_by is None:
        checked = "by ONNX's checker; not run in ONNX Runtime"
    else:
        checked = (
            f"by ONNX's checker and {exported.verified_by}, whose outputs differ from resrt's by "
            f"at most {exported.difference:.1e} of the largest"
        )
    size = exported.path.stat().st_size / 1e6
    return [
        ("network", f"{exported.network}, weights: {exported.weights}"),
        ("model", f"images {shape} -> {outputs}, opset {exported.opset}"),
        ("images", preprocessing_row(exported)),
        ("verified", checked),
        ("written", f"{exported.path}, {size:.1f} MB"),
    ]
