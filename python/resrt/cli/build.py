"""`resrt build`."""

from __future__ import annotations

import argparse
from typing import Any

from resrt._core import backend_names
from resrt.cli.arguments import (
    CALIBRATION,
    INVALID_ARGUMENT,
    NETWORK,
    Misuse,
    add_preprocessing,
    add_shared,
    calibration,
    check_output,
    count,
    count_or_zero,
    model,
    preprocessing,
    unicode_text,
)
from resrt.cli.tables import outputs_row, preprocessing_row
from resrt.cli.terminal import waiting

SUMMARY = "build an engine file"
DESCRIPTION = (
    "Builds an engine from a network's layer definitions and weights, and writes it to a file."
)
EXAMPLE = "resrt build ResNeSt50 -o resnest50.engine"
MISUSE = INVALID_ARGUMENT

_TENSORRT: dict[str, dict[str, Any]] = {
    "workspace": {"type": count_or_zero, "metavar": "MIB", "help": "scratch memory per layer"},
    "optimization_level": {
        "type": count_or_zero,
        "metavar": "N",
        "help": "from 0, the fastest build, to 5, the longest search; default: 3",
    },
    "optimum_batch": {
        "type": count,
        "metavar": "N",
        "help": "the batch size to tune kernels for; default: the largest",
    },
    "timing_cache": {
        "type": unicode_text,
        "metavar": "FILE",
        "help": "kernel timings, read and written, which make the next build faster",
    },
    "hardware_compatibility": {
        "choices": ["none", "ampere+", "same_compute_capability"],
        "help": "the other GPUs on which the engine runs; default: none",
    },
    "version_compatible": {
        "action": "store_true",
        "help": "allow later versions of TensorRT to load the engine",
    },
    "compute_capabilities": {
        "type": count,
        "nargs": "+",
        "metavar": "CC",
        "help": "the GPUs to build for, such as 75 86 120; only with TensorRT for RTX",
    },
    "split_attention_plugin": {
        "action": "store_true",
        "help": "use resrt's plugin for split attention; not with TensorRT for RTX",
    },
    "lowering": {
        "nargs": "+",
        "choices": ["split", "dense", "merged", "pooled", "windows", "matrix"],
        "metavar": "NAME",
        "help": "other ways to lower some layers: split, dense, merged, pooled, windows, matrix",
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, *NETWORK)
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_shared(parser, "--overwrite", "--precision", *CALIBRATION)
    parser.add_argument(
        "--max-batch", type=count, metavar="N", default=8, help="default: %(default)s"
    )
    add_shared(parser, "--classes", "--in-channels", "--labels", "--key", "--outputs")
    parser.add_argument(
        "--no-cache", action="store_true", help="do not use the cache of built engines"
    )
    parser.add_argument(
        "--backend",
        default="openvino",
        metavar="NAME",
        choices=backend_names(),
        help=f"{', '.join(backend_names())}; default: %(default)s",
    )
    add_shared(parser, "--tune", "--device")
    add_preprocessing(parser)
    # TensorRT's own defaults apply to the options that are not given.
    group = parser.add_argument_group("TensorRT", argument_default=argparse.SUPPRESS)
    for name, settings in _TENSORRT.items():
        group.add_argument(f"--{name.replace('_', '-')}", **settings)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    given = {name: value for name, value in vars(options).items() if name in _TENSORRT}
    if not options.backend.startswith("tensorrt"):
        of_gpus = ["device"] * (options.device is not None) + list(given)
        if of_gpus:
            raise Misuse(
                f"--{of_gpus[0].replace('_', '-')} is only for the TensorRT backends; choose one "
                "with --backend, or omit the option"
            )
    network = model(options)
    check_output(options, options.output)
    ranges = calibration(options)
    with waiting(f"building {options.network or options.config}", quiet=options.quiet) as progress:
        built = resrt.build_file(
            network,
            options.output,
            options.weights,
            cache=not options.no_cache,
            precision=options.precision,
            calibration=ranges,
            max_batch=options.max_batch,
            input_size=options.input_size,
            classes=options.classes,
            in_channels=options.in_channels,
            labels=options.labels,
            preprocessing=preprocessing(options),
            key=options.key,
            outputs=options.outputs,
            backend=options.backend,
            tune=options.tune,
            device=options.device,
            tensorrt=resrt.TensorRTOptions(**given) if given else None,
            progress=progress,
        )
    if not options.quiet:
        info = built.info
        shape = "x".join(map(str, info.input_shape))
        print(
            f"{info.model}: {shape} -> {outputs_row(info)}, {info.precision} on {info.backend} "
            f"{info.backend_version}, max_batch {info.max_batch}\n"
            f"preprocessing: {preprocessing_row(info)}\n"
            f"{built.path}: {built.size / 1e6:.1f} MB in {built.seconds:.1f} s"
            f"{', from the cache' if built.from_cache else ''}"
        )
