"""`resrt build`."""

from __future__ import annotations

import argparse
from pathlib import Path

from resrt._core import backend_names
from resrt.cli.arguments import (
    DONE,
    Commands,
    add_command,
    add_device,
    add_network,
    add_precision,
)
from resrt.cli.terminal import waiting


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "build",
        _run,
        summary="build an engine file",
        description="Builds an engine from a network's layer definitions and weights, and "
        "writes it to a file.",
        example="resrt build ResNeSt50 -o resnest50.engine",
    )
    add_network(parser)
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    add_precision(parser)
    parser.add_argument("--max-batch", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
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
    add_device(parser)
    _add_tensorrt(parser)


def _add_tensorrt(parser: argparse.ArgumentParser) -> None:
    """Add TensorRT's options. Those that are not given keep its defaults."""
    group = parser.add_argument_group("TensorRT", argument_default=argparse.SUPPRESS)
    group.add_argument("--workspace", type=int, metavar="MIB", help="scratch memory per layer")
    group.add_argument(
        "--optimization-level",
        type=int,
        metavar="N",
        help="from 0, the fastest build, to 5, the longest search; default: 3",
    )
    group.add_argument(
        "--optimum-batch",
        type=int,
        metavar="N",
        help="the batch size to tune kernels for; default: the largest",
    )
    group.add_argument(
        "--timing-cache",
        metavar="FILE",
        help="kernel timings, read and written, which make the next build faster",
    )
    group.add_argument(
        "--hardware-compatibility",
        choices=["none", "ampere+", "same_compute_capability"],
        help="the other GPUs on which the engine runs; default: none",
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="allow later versions of TensorRT to load the engine",
    )
    group.add_argument(
        "--compute-capabilities",
        type=int,
        nargs="+",
        metavar="CC",
        help="the GPUs to build for, such as 75 86 120; only with TensorRT for RTX",
    )
    group.add_argument(
        "--split-attention-plugin",
        action="store_true",
        help="use resrt's plugin for split attention; not with TensorRT for RTX",
    )


_TENSORRT_OPTIONS = (
    "workspace",
    "optimization_level",
    "optimum_batch",
    "timing_cache",
    "hardware_compatibility",
    "version_compatible",
    "compute_capabilities",
    "split_attention_plugin",
)


def _run(options: argparse.Namespace) -> int:
    import resrt

    given = {name: getattr(options, name) for name in _TENSORRT_OPTIONS if hasattr(options, name)}
    with waiting(f"building {options.network}", quiet=options.quiet) as progress:
        built = resrt.build_file(
            options.network,
            options.output,
            options.weights,
            cache=not options.no_cache,
            precision=options.precision,
            max_batch=options.max_batch,
            input_size=options.input_size,
            labels=None if options.labels is None else Path(options.labels),
            backend=options.backend,
            device=options.device,
            tensorrt=resrt.TensorRTOptions(**given) if given else None,
            progress=progress,
        )
    if not options.quiet:
        info = built.info
        shape = "x".join(map(str, info.input_shape))
        print(
            f"{info.model}: {shape} -> {info.classes} classes, {info.precision} on {info.backend} "
            f"{info.backend_version}, max_batch {info.max_batch}\n"
            f"{built.path}: {built.size / 1e6:.1f} MB in {built.seconds:.1f} s"
            f"{', from the cache' if built.from_cache else ''}"
        )
    return DONE
