"""The arguments that several commands share, and their exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resrt._core import precision_names
from resrt.cli.terminal import waiting
from resrt.errors import FileError, InputError, ModelError, PrecisionError

if TYPE_CHECKING:
    from resrt import Calibration, Engine
    from resrt.catalog.models import Config

DONE, FAILED, MISUSED, SKIPPED = 0, 1, 2, 3


class Misuse(InputError):
    """Options that do not belong together. The exit status is MISUSED."""


_LONGEST_LINE = 1 << 16  # of a list of files, in bytes

# Paths of this process's own streams, which may be redirected to a file.
_OWN_STREAM = re.compile(r"/dev/(?:std(?:out|err)|fd/\d+)|/proc/self/fd/\d+")

# What is also misuse in commands whose only inputs are their arguments: in one that reads images,
# an InputError may be about these.
INVALID_ARGUMENT = (InputError, ModelError, PrecisionError)


def count(text: str) -> int:
    """Parse an integer of at least 1."""
    return _whole(text, 1)


def _workers(text: str) -> int:
    most = 1024  # as in resrt.engine.batches
    with _expecting(f"an integer from 1 to {most}", text):
        value = int(text)
        if not 1 <= value <= most:
            raise ValueError
    return value


def count_or_zero(text: str) -> int:
    """Parse an integer of at least 0."""
    return _whole(text, 0)


def _input_size(text: str) -> int | tuple[int, int]:
    """Parse a height and width, such as 224 or 192x256."""
    with _expecting("an integer of at least 1, or two such as 192x256", text):
        sides = tuple(int(side) for side in text.split("x"))
        if len(sides) > 2 or not all(0 < side < 2**31 for side in sides):
            raise ValueError
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def fraction(text: str) -> float:
    """Parse a number from 0 to 1."""
    with _expecting("a number from 0 to 1", text):
        value = float(text)
        if not 0 <= value <= 1:
            raise ValueError
    return value


def seconds(text: str) -> float:
    """Parse a number of seconds of at least 0."""
    with _expecting("a number of seconds of at least 0", text):
        value = float(text)
        if not 0 <= value < math.inf:
            raise ValueError
    return value


def unicode_text(text: str) -> str:
    """Return a text. A byte of the command line that is not UTF-8 is an error."""
    with _expecting("UTF-8", ascii(text)):
        text.encode()  # UnicodeEncodeError is a ValueError
    return text


def _device(text: str) -> str:
    with _expecting("a GPU such as cuda or cuda:1", text):
        if not re.fullmatch(r"cuda(:\d{1,4})?", text):
            raise ValueError
    return text


def _whole(text: str, least: int) -> int:
    with _expecting(f"an integer of at least {least}", text):
        value = int(text)
        if not least <= value < 2**31:
            raise ValueError
    return value


@contextlib.contextmanager
def _expecting(what: str, text: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, not '{text[:100]}'") from None


_SHARED: dict[str, dict[str, Any]] = {
    "engine": {"metavar": "ENGINE", "help": "an engine file, written by resrt build"},
    "network": {
        "nargs": "?",
        "metavar": "NAME",
        "help": "a network, as resrt models lists them",
    },
    "--config": {
        "metavar": "FILE",
        "help": "a JSON or TOML file with the parameters of a network of your own, instead of NAME",
    },
    "--weights": {
        "metavar": "FILE",
        "help": 'a weights file, hf-hub:OWNER/NAME, or "random"; default: the pretrained weights, '
        "downloaded if needed",
    },
    "--input-size": {
        "type": _input_size,
        "metavar": "N|HxW",
        "help": "height and width in pixels, such as 224 or 192x256",
    },
    "--offline": {
        "action": "store_true",
        "help": "do not download anything; use only local weights",
    },
    "--classes": {
        "type": count,
        "metavar": "N",
        "help": "default: as many as the weights have",
    },
    "--in-channels": {
        "type": count,
        "metavar": "N",
        "help": "default: as many as the weights have",
    },
    "--labels": {"type": Path, "metavar": "FILE", "help": "names of the classes, one per line"},
    "--key": {"help": "the entry of a checkpoint to use, such as state_dict"},
    "--outputs": {
        "nargs": "+",
        "metavar": "OUTPUT",
        "help": "what it returns: logits, features, layer1 and so on (the end of a stage), cam "
        "(class activation maps), or the name of a layer; default: logits",
    },
    "--precision": {
        "default": "auto",
        "choices": precision_names(),
        "help": "default: %(default)s",
    },
    "--calibration": {
        "metavar": "FILE",
        "help": "the ranges of the tensors for int8 or fp8, written by resrt calibrate",
    },
    "--calibrate": {
        "metavar": "DIR",
        "help": "measure the ranges on the photographs in a folder, instead of --calibration",
    },
    "--threads": {
        "type": count,
        "metavar": "N",
        "help": "processor threads; default: one per core",
    },
    "images": {
        "nargs": "+",
        "metavar": "IMAGE",
        "help": "files, folders (with their subfolders), patterns, or - for a list on standard "
        "input, one path per line",
    },
    "--exact": {
        "action": "store_true",
        "help": "decode every JPEG at full size, however large it is",
    },
    "--limit": {"type": count, "metavar": "N", "help": "use N images, sampled evenly"},
    "--tune": {
        "type": seconds,
        "metavar": "SECONDS",
        "help": "how long to measure which of OpenVINO's kernels are the fastest; 0: take its "
        "default ones; default: 10",
    },
    "--multilabel": {
        "action": "store_true",
        "help": "the network was trained for several labels per image: probabilities are sigmoids",
    },
    "--workers": {"type": _workers, "metavar": "N", "help": "threads; default: one per core"},
    "--device": {
        "type": _device,
        "metavar": "GPU",
        "help": "the GPU to use, such as cuda:1; default: the first. Only for GPU backends",
    },
    "--format": {"choices": ["text", "json"], "default": "text"},
    "--overwrite": {"action": "store_true", "help": "replace the output if it exists"},
}

# The arguments of a command that takes a network by its name.
NETWORK = ("network", "--config", "--weights", "--input-size", "--offline")


def add_shared(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add shared arguments by their names, in this order."""
    for name in names:
        action = parser.add_argument(name, **_SHARED[name])
        if name == "network":
            complete(action)


def complete(action: argparse.Action) -> None:
    """Let a shell complete the names of networks for an argument."""
    action.completer = _network_names  # type: ignore[attr-defined]  # for argcomplete


def _network_names(**_: object) -> list[str]:
    import resrt

    return [name for model in resrt.list_models() for name in (model.name, *model.pretrained)]


def loaded(options: argparse.Namespace) -> Engine:
    """Load the command's engine for throughput. Raises Misuse for a device that it cannot use."""
    import resrt

    try:
        return resrt.load(options.engine, optimize_for="throughput", device=options.device)
    except InputError as error:
        raise Misuse(str(error)) from None


def image_paths(options: argparse.Namespace) -> Iterator[str]:
    """Yield the paths of the argument IMAGE, and those that standard input lists for -."""
    for argument in options.images:
        if argument == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed; - requires a list of files there")
            while line := sys.stdin.buffer.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise InputError(
                        f"standard input is not a list of files: a line has {len(line)} bytes"
                    )
                if path := line.rstrip(b"\r\n"):
                    yield os.fsdecode(path)
        else:
            yield argument


def model(options: argparse.Namespace) -> str | Config:
    """Return the network of NETWORK's arguments."""
    if (options.network is None) == (options.config is None):
        raise Misuse(
            "requires either the name of a network or a file of parameters in --config; resrt "
            "weights FILE says which networks a weights file fits"
        )
    if options.config is None:
        name: str = options.network
        return name
    import resrt

    return resrt.read_config(options.config)


# What a command takes that builds a network with 8-bit integers.
CALIBRATION = ("--calibration", "--calibrate", "--limit")


def calibration(options: argparse.Namespace) -> Calibration | None:
    """Return the calibration that the command's CALIBRATION options give or ask for."""
    import resrt

    if options.calibrate is None:
        if options.limit is not None:
            raise Misuse("--limit requires --calibrate")
        return None if options.calibration is None else resrt.Calibration.load(options.calibration)
    if options.calibration is not None:
        raise Misuse("give either --calibration or --calibrate")
    with waiting("calibrating", quiet=options.quiet) as progress:
        return resrt.calibrate(
            model(options),
            options.weights,
            options.calibrate,
            limit=options.limit or 512,
            classes=options.classes,
            in_channels=options.in_channels,
            key=options.key,
            input_size=options.input_size,
            preprocessing=preprocessing(options),
            progress=progress,
        )


def add_records(parser: argparse.ArgumentParser, **output: Any) -> None:
    """Add -o for a file of records, and what to do if that exists."""
    parser.add_argument("-o", "--output", metavar="FILE", **output)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--resume",
        action="store_true",
        help="process only the images that FILE has no record of; it must have been made by the "
        "same engine and options",
    )
    group.add_argument("--overwrite", **_SHARED["--overwrite"])


def add_ray(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --ray, the address of a cluster."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"{what} on the Ray cluster at this address; auto: the one that runs here, local: one "
        "that is started on this machine",
    )


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe how photographs become inputs."""
    group = parser.add_argument_group(
        "preprocessing of photographs",
        "What is not given is as the weights say, or a config.json beside them, or else as for the "
        "network's pretrained weights.",
        argument_default=argparse.SUPPRESS,
    )
    like = group.add_argument("--like", metavar="NAME", help="as for these pretrained weights")
    complete(like)
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help="of each channel, for pixels in 0..1; one value is for all channels",
        )
    size = group.add_mutually_exclusive_group()
    size.add_argument(
        "--resize", type=count, metavar="N", help="the short side after resizing, in pixels"
    )
    size.add_argument(
        "--crop-pct",
        type=float,
        metavar="X",
        help="the same, as the input size divided by X",
    )
    group.add_argument(
        "--crop-mode",
        choices=["center", "squash"],
        help="keep the proportions and crop the centre, or resize to those of the input",
    )
    group.add_argument("--interpolation", choices=["bilinear", "bicubic", "lanczos"])


def preprocessing(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the given options of `add_preprocessing`, for the public functions."""
    names = ("like", "mean", "std", "resize", "crop_pct", "crop_mode", "interpolation")
    return {name: getattr(options, name) for name in names if hasattr(options, name)} or None


def check_records(options: argparse.Namespace) -> None:
    """Raise Misuse for --resume or --overwrite without the file of -o."""
    for name in ("resume", "overwrite"):
        if getattr(options, name) and options.output is None:
            raise Misuse(f"--{name} requires the file to {name}: name it with -o")


def check_output(options: argparse.Namespace, output: str | None) -> None:
    """Raise FileError if a file exists that the command would replace without --overwrite."""
    if output is None or options.overwrite:
        return
    if os.path.isfile(output) and not _OWN_STREAM.fullmatch(output):  # noqa: PTH113 - never raises
        raise FileError(f"'{output}' exists; name another file, or replace it with --overwrite")
