"""`resrt models`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from resrt.cli import tables
from resrt.cli.arguments import Misuse, complete
from resrt.cli.tables import Column, millions, percent
from resrt.errors import InputError

if TYPE_CHECKING:
    from resrt import ModelInfo

SUMMARY = "list the networks"
DESCRIPTION = (
    "Lists the networks of the catalog: their input size, parameters and arithmetic, the accuracy "
    "that PaddleClas publishes, and the number of known pretrained weights."
)
MISUSE = InputError
EXAMPLE = "resrt models 'ResNe*50*' --pretrained --sort gflops"

_COLUMNS: list[Column[ModelInfo]] = [
    Column("name", "name", lambda model: model.name),
    Column("family", "family", lambda model: model.family),
    Column("source", "source", lambda model: model.source),
    Column("input_size", "input (px)", lambda model: model.input_size),
    Column("parameters", "parameters (M)", lambda model: model.parameters, millions),
    Column("gflops", "GFLOPs", lambda model: model.gflops, "{:.2f}".format),
    Column("top1", "top-1 (%)", lambda m: m.published.top1 if m.published else None, percent),
    Column("top5", "top-5 (%)", lambda m: m.published.top5 if m.published else None, percent),
    Column("pretrained", "pretrained", lambda model: list(model.pretrained), len),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    pattern = parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="a shell pattern of names, quoted; case is ignored; default: all",
    )
    complete(pattern)
    parser.add_argument("--source", help="PaddleClas, timm, torchvision or paper")
    parser.add_argument("--family", help="ResNet, ResNeSt, RegNetX, RegNetY, RegNetV or RegNetZ")
    parser.add_argument(
        "--pretrained", action="store_true", default=None, help="only with pretrained weights"
    )
    parser.add_argument(
        "--published", action="store_true", default=None, help="only with published figures"
    )
    parser.add_argument(
        "--max-params",
        type=float,
        metavar="M",
        help="the maximum number of parameters, in millions",
    )
    parser.add_argument(
        "--max-gflops", type=float, metavar="G", help="the maximum arithmetic, in GFLOPs"
    )
    names = [column.name for column in _COLUMNS]
    parser.add_argument(
        "--sort", choices=names, metavar="COLUMN", help=f"one of {', '.join(names)}"
    )
    parser.add_argument("--descending", action="store_true", help="sort in descending order")
    parser.add_argument(
        "--format",
        choices=list(tables.FORMATS),
        default="table",
        help="default: %(default)s, which is truncated to the width of a terminal",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    models = resrt.list_models(
        options.pattern,
        source=options.source,
        family=options.family,
        is_pretrained=options.pretrained,
        is_published=options.published,
        max_parameters=None if options.max_params is None else 1e6 * options.max_params,
        max_gflops=options.max_gflops,
    )
    if not models:
        raise resrt.ModelError(
            "no network of the catalog matches; `resrt models` lists all of them"
        )
    if options.descending and not options.sort:
        raise Misuse("--descending requires a column to sort by: name it with --sort")
    if options.sort:
        column = next(column for column in _COLUMNS if column.name == options.sort)
        models = tables.sort(models, column, descending=options.descending)
    tables.show(models, _COLUMNS, options.format)
