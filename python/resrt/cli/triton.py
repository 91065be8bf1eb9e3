"""`resrt triton`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from resrt.cli.arguments import INVALID_ARGUMENT, add_shared, count
from resrt.cli.terminal import steps

if TYPE_CHECKING:
    from resrt import ServedModel

SUMMARY = "write a model repository for Triton Inference Server"
DESCRIPTION = (
    "Writes a model repository from which Triton Inference Server or OpenVINO Model Server serves "
    "engines. The number of instances and the preferred batch sizes are measured here unless they "
    "are given."
)
EXAMPLE = "resrt triton resnest50.engine -o model_repository"
MISUSE = INVALID_ARGUMENT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "engines", nargs="+", metavar="ENGINE", help="engine files, written by resrt build"
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL_REPOSITORY", required=True, help="the folder to write"
    )
    parser.add_argument(
        "--form",
        choices=["python", "openvino", "tensorrt"],
        default="python",
        help="python: models for preprocessed images, uint8 pictures and photographs, which run "
        "resrt; openvino: the network in OpenVINO's format; tensorrt: a TensorRT plan; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--name", help="the name of the model; default: the file's name without its suffix"
    )
    parser.add_argument(
        "--new-version",
        action="store_true",
        help="add the engines to existing models, as their next version",
    )
    parser.add_argument(
        "--instances", type=count, metavar="N", help="processes that load the engine"
    )
    parser.add_argument(
        "--batch-sizes", type=count, nargs="+", metavar="N", help="preferred sizes of batches"
    )
    parser.add_argument(
        "--exact", action="store_true", help="decode every JPEG at full size, however large it is"
    )
    add_shared(parser, "--device")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    import resrt

    with steps(quiet=options.quiet) as progress:
        written = resrt.triton(
            options.engines,
            options.output,
            form=options.form,
            name=options.name,
            new_version=options.new_version,
            instances=options.instances,
            batch_sizes=options.batch_sizes,
            exact=options.exact,
            device=options.device,
            progress=progress,
        )
    if not options.quiet:
        for model in written:
            print(_line(model))
        print(f"start the server with: tritonserver --model-repository={options.output}")


def _line(model: ServedModel) -> str:
    text = f"{model.name}, version {model.version}: {model.data_type} {model.input} -> FP32 logits"
    if model.instances is not None and model.data_type == "FP32":
        sizes = " ".join(map(str, model.batch_sizes))
        text += f"; instances: {model.instances}, preferred batch sizes: {sizes}"
        if model.images_per_second is not None:
            text += f"; {model.images_per_second:.0f} images/s here"
    return text
