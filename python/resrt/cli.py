"""The `resrt` command: parses, calls the Python API, prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import resrt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 misused."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except resrt.Error as error:
        if options.debug:
            raise
        print(f"resrt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough. Nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resrt", description="ResNet, ResNeSt and RegNet classifiers as fast engines."
    )
    parser.add_argument("--version", action="version", version=f"resrt {resrt.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="classify handwritten digits that ship with resrt",
        description="Builds a small ResNeSt from layer definitions and trained weights, classifies "
        "held-out handwritten digits, and prints accuracy and latency.",
    )
    _add_precision(demo)
    demo.add_argument("--threads", type=int, help="processor threads; default: one for each core")
    demo.set_defaults(run=_demo)

    build = commands.add_parser(
        "build",
        help="build an engine file",
        description="Builds an engine from a network's layer definitions and its weights, and "
        "writes it to a file.",
        epilog="example: resrt build ResNeSt50 -o resnest50.engine",
    )
    build.add_argument("network", metavar="NAME", help="a network, as resrt.list_models has it")
    build.add_argument(
        "--weights",
        metavar="FILE",
        help='a weights file, or "random"; default: the pretrained ones, downloaded if need be',
    )
    build.add_argument("-o", "--output", metavar="FILE", required=True)
    _add_precision(build)
    build.add_argument("--max-batch", type=int, default=8, help="default: %(default)s")
    build.add_argument("--input-size", type=int, help="height and width in pixels")
    build.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    build.add_argument("--offline", action="store_true", help="use no network")
    build.set_defaults(run=_build)

    weights = commands.add_parser(
        "weights",
        help="say what a weights file is",
        description="Says of each file its format, how its parameters are named, which networks it "
        "fits, and what is odd about it.",
        epilog="example: resrt weights ResNeSt50_pretrained.pdparams",
    )
    weights.add_argument("files", nargs="+", metavar="FILE")
    weights.add_argument("--format", choices=["text", "json"], default="text")
    weights.set_defaults(run=_weights)

    convert = commands.add_parser(
        "convert",
        help="write weights as safetensors that load at once",
        description="Writes weights of any known format as a safetensors file with the network's "
        "parameter names, its preprocessing and labels.",
        epilog="example: resrt convert ResNet50_pretrained.pdparams resnet50.safetensors",
    )
    convert.add_argument("source", metavar="IN")
    convert.add_argument("destination", metavar="OUT.safetensors")
    convert.add_argument("--network", help="whose weights they are; default: the one that fits")
    convert.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    convert.set_defaults(run=_convert)
    return parser


def _add_precision(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision", default="auto", choices=resrt.PRECISIONS, help="default: %(default)s"
    )


def _demo(options: argparse.Namespace) -> int:
    from resrt.demo import demo

    demo(precision=options.precision, threads=options.threads)
    return 0


def _build(options: argparse.Namespace) -> int:
    if options.offline:
        os.environ["RESRT_OFFLINE"] = "1"
    start = time.perf_counter()
    engine = resrt.build(
        options.network,
        options.weights,
        precision=options.precision,
        max_batch=options.max_batch,
        input_size=options.input_size,
        labels=None if options.labels is None else Path(options.labels),
    )
    engine.save(options.output)
    size = Path(options.output).stat().st_size / 1e6
    print(f"{engine}\n{options.output}: {size:.1f} MB in {time.perf_counter() - start:.1f} s")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from resrt import labels
    from resrt.conversion import convert

    names = labels.read(options.labels) if options.labels else None
    metadata = convert(options.source, options.destination, network=options.network, names=names)
    for name, value in metadata.items():
        print(f"{name:<14} {value if len(value) <= 80 else f'{value[:80]}…'}")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from resrt import weights

    descriptions = {file: weights.describe(weights.read(file)) for file in options.files}
    if options.format == "json":
        documents = {file: dataclasses.asdict(found) for file, found in descriptions.items()}
        print(json.dumps(documents, indent=2, ensure_ascii=False))
        return 0
    for file, found in descriptions.items():
        print(f"{file}:")
        for name, value in _rows(found):
            print(f"  {name:<12} {value}")
    return 0


def _rows(found: resrt.weights.Description) -> Iterator[tuple[str, str]]:
    yield "format", found.format
    yield "names", f"as {found.convention} gives them"
    yield (
        "content",
        f"{found.parameters:,} values in {found.arrays} arrays of {', '.join(found.dtypes)}",
    )
    fits = [match.network for match in found.matches if match.share == 1]
    if fits:
        yield "fits", ", ".join(fits)
    elif found.matches:
        nearest = found.matches[0]
        yield "nearest", f"{nearest.network}, with {nearest.share:.0%} of the parameters in common"
    else:
        yield "nearest", "no network of the catalog has as much as 80% of these parameters"
    if found.classes is not None:
        channels = "" if found.in_channels is None else f", {found.in_channels} input channels"
        yield "trained for", f"{found.classes} classes{channels}"
    for name, value in found.metadata.items():
        yield name, value if len(value) <= 60 else f"{value[:60]}…"
    for oddity in found.oddities:
        yield "odd", oddity
