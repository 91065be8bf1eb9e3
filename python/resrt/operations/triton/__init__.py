"""`resrt.triton`: model repositories for Triton Inference Server and OpenVINO Model Server."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fsdecode
from pathlib import Path

from resrt._support.arguments import choice, whole
from resrt._support.arguments import path as checked_path
from resrt._support.files import TEMPORARY_SUFFIX, file_kind, is_regular, move, read_text, sync
from resrt.errors import Error, FileError, InputError
from resrt.operations.inspect import inspect
from resrt.operations.triton import config, models
from resrt.operations.triton.models import Model, Source
from resrt.operations.triton.settings import Progress, Settings, measure
from resrt.weights.metadata import fields

FORMS = ("python", "openvino", "tensorrt")

_CONFIG_FILE = "config.pbtxt"


@dataclass(frozen=True)
class ServedModel:
    """A model of a repository, as clients see it.

    `input` is float32 or uint8 (N, channels, height, width), or N image files as BYTES. The output
    is "logits", float32 (N, classes).

    Attributes:
        instances: the instances of the engine, on the CPU or on each GPU; None for a new version of
            a model, which keeps the model's own.
        batch_sizes: the preferred batch sizes; empty for a new version.
        images_per_second: the highest throughput of the engine here; None if it was not measured.
    """

    name: str
    version: int
    input: str
    data_type: str
    instances: int | None = None
    batch_sizes: tuple[int, ...] = ()
    images_per_second: float | None = None


def triton(
    engines: str | PathLike[str] | Sequence[str | PathLike[str]],
    repository: str | PathLike[str],
    *,
    form: str = "python",
    name: str | None = None,
    new_version: bool = False,
    instances: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    exact: bool = False,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[ServedModel]:
    """Write a model repository from which Triton Inference Server serves engines.

    The form "python" runs everywhere where resrt and Triton's Python backend do, with any engine.
    It has three models for an engine NAME: NAME takes preprocessed images, NAME_uint8 pictures of
    the input's size, and NAME_photographs JPEG files and others, which are preprocessed as by
    `resrt.classify`. NAME alone loads the engine; the others ask it for logits. "openvino" is the
    network in OpenVINO's own format, for Triton's OpenVINO backend and OpenVINO Model Server, and
    "tensorrt" is a TensorRT plan; both have NAME alone.

    Unless given, the number of instances and the preferred batch sizes are those with which an
    engine has the highest throughput here, which takes some seconds to measure.

    Args:
        engines: engine files. They are copied, so that the repository can be moved or uploaded.
        repository: a folder that does not exist yet, or one of models with other names. All models
            of the engines are added to it, or none.
        form: "python", "openvino" or "tensorrt".
        name: the name of the model; None: the name of the engine file without its suffix. Only for
            one engine.
        new_version: add the engines to existing models, as their next version. A version takes the
            same photographs as the others, and has the same classes.
        instances: instances of an engine, each a process with its own copy of the weights.
        batch_sizes: the preferred sizes of the batches that Triton forms.
        exact: decode every JPEG at full size, as for `resrt.classify`.
        device: the GPU to measure on, such as "cuda:1"; None: the first.
        progress: called with the name of each measurement before it.

    Returns the models. Raises FileError if a model exists, or does not exist for `new_version`, or
    the repository cannot be written; EngineFileError and BackendError for an engine that cannot run
    here, unless `instances` and `batch_sizes` are given; InputError for invalid arguments.
    """
    files = [engines] if isinstance(engines, (str, PathLike)) else list(engines)
    if choice("form", form) not in FORMS:
        raise InputError(f"form must be one of {', '.join(FORMS)}, not {form}")
    if instances is not None:
        whole("instances", instances)
    if batch_sizes is not None:
        batch_sizes = sorted({whole("batch_sizes", size) for size in batch_sizes})
    folder = Path(fsdecode(checked_path(repository)))
    sources = _sources(files, name, exact)
    _check_repository(folder)
    written: list[ServedModel] = []
    with _staging(folder) as (stage, moves):
        for source in sources:
            listed = models.models(source, form)
            if new_version:
                written += _add_version(source, listed, folder, stage, moves)
                continue
            _check_free(listed, folder)
            settings = _settings(
                source, instances, batch_sizes, device, progress or (lambda _: None)
            )
            written += _add_models(listed, settings, folder, stage, moves)
        if form == "openvino" and not new_version:
            _add_overview(sources, folder, stage, moves)
    return written


def _sources(files: Sequence[str | PathLike[str]], name: str | None, exact: bool) -> list[Source]:
    if not files:
        raise InputError("there is no engine to serve; name at least one engine file")
    if name is not None and len(files) > 1:
        raise InputError(f"name is only for one engine, not for {len(files)}")
    sources: dict[str, Source] = {}
    for file in files:
        found = inspect(file)
        chosen = Path(fsdecode(file)).stem if name is None else choice("name", name)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", chosen):
            raise InputError(
                f"'{chosen}' is not a name for a model, which has letters, digits, '_', '-' and "
                "'.'; give another with name"
            )
        if chosen in sources:
            raise InputError(
                f"'{sources[chosen].file}' and '{found.path}' are both named '{chosen}'; write one "
                "of them by itself, with another name"
            )
        sources[chosen] = Source(Path(fsdecode(file)), chosen, found.info, exact)
    return list(sources.values())


def _check_repository(folder: Path) -> None:
    if file_kind(folder) not in (None, 0, stat.S_IFDIR):  # writing says why it is unknown
        raise FileError(f"'{folder}' is not a folder; name another for the model repository")


def _check_free(listed: list[Model], folder: Path) -> None:
    _check_whole(listed, folder)
    for model in listed:
        if file_kind(folder / model.name) not in (None, 0):
            raise FileError(
                f"the model '{folder / model.name}' exists; add a version to it (--new-version), "
                "or choose another name or repository"
            )


def _check_whole(listed: list[Model], folder: Path) -> None:
    """Raise FileError for models without the first, which they call, and which is moved last."""
    first, *others = (folder / model.name for model in listed)
    for other in others:
        if file_kind(other) is not None and file_kind(first) is None:
            raise FileError(
                f"the model '{other}' exists without '{first}': a run that was interrupted may "
                "have left it; remove it, or choose another name or repository"
            )


def _settings(
    source: Source,
    instances: int | None,
    batch_sizes: Sequence[int] | None,
    device: str | None,
    progress: Progress,
) -> Settings:
    largest = source.info.max_batch
    if batch_sizes and batch_sizes[-1] > largest:
        raise InputError(
            f"'{source.file}' was built for at most {largest} images at once, not for a batch of "
            f"{batch_sizes[-1]}; build it with a larger max_batch"
        )
    if instances and batch_sizes:
        return Settings(instances, tuple(batch_sizes))
    try:
        return measure(
            source.file,
            source.info,
            instances=instances,
            batch_sizes=batch_sizes,
            device=device,
            progress=lambda step: progress(f"{source.name}, {step}"),
        )
    except Error as error:
        raise type(error)(
            f"{error}. To write a repository for another machine, give the number of instances and "
            "the batch sizes, which are then not measured"
        ) from None


def _add_models(
    listed: list[Model], settings: Settings, folder: Path, stage: Path, moves: list[_Move]
) -> list[ServedModel]:
    for model in reversed(listed):
        made = stage / model.name
        version = made / "1"
        version.mkdir(parents=True)
        model.write(made)
        model.write_version(version)
        (made / _CONFIG_FILE).write_text(config.text(model.config(settings)), "utf-8")
        moves.append((made, folder / model.name))
    return [
        dataclasses.replace(_served(model, 1), **dataclasses.asdict(settings)) for model in listed
    ]


def _add_version(
    source: Source, listed: list[Model], folder: Path, stage: Path, moves: list[_Move]
) -> list[ServedModel]:
    _check_whole(listed, folder)
    newest = [_newest_version(folder / model.name) for model in listed]
    _check_same(source, folder, newest[0])
    version = max(newest) + 1
    for model in reversed(listed):
        made = stage / model.name / str(version)
        made.mkdir(parents=True)
        model.write_version(made)
        moves.append((made, folder / model.name / str(version)))
    return [_served(model, version) for model in listed]


def _newest_version(model: Path) -> int:
    """Return the highest version of a model. Raises FileError if it has none."""
    with contextlib.suppress(OSError):
        found = [int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()]
        if found and is_regular(model / _CONFIG_FILE):
            return max(found)
    raise FileError(
        f"there is no model '{model}' to add a version to; write it without --new-version first"
    )


def _check_same(source: Source, folder: Path, version: int) -> None:
    """Raise InputError if a new version takes other inputs or has other classes than the last."""
    last = folder / source.name / str(version) / models.ENGINE_FILE
    if not is_regular(last):  # of another form than python, whose server checks the shapes
        return
    old, new = inspect(last).info, source.info
    for what, before, now in (
        ("inputs", old.input_shape, new.input_shape),
        ("labels", old.labels, new.labels),
        ("number of classes", old.classes, new.classes),
        ("preprocessing", fields(old.preprocessing), fields(new.preprocessing)),
    ):
        if before != now:
            raise InputError(
                f"'{source.file}' cannot be a version of the model '{source.name}', whose {what} "
                "differ from its own; serve it under another name"
            )


def _add_overview(sources: list[Source], folder: Path, stage: Path, moves: list[_Move]) -> None:
    """Add the configuration of OpenVINO Model Server, with the models that it has already."""
    document = models.overview({source.name: source for source in sources})
    file = folder / models.OVERVIEW_FILE
    if file_kind(file) is not None:
        try:
            known = [*json.loads(read_text(file))["model_config_list"]]
        except (ValueError, KeyError, TypeError, RecursionError, OSError):
            raise FileError(
                f"'{file}' is not a configuration of OpenVINO Model Server; move it away"
            ) from None
        document["model_config_list"] = [*known, *document["model_config_list"]]
    (stage / models.OVERVIEW_FILE).write_text(f"{json.dumps(document, indent=2)}\n", "utf-8")
    moves.append((stage / models.OVERVIEW_FILE, file))


def _served(model: Model, version: int) -> ServedModel:
    return ServedModel(model.name, version, model.input, model.data_type)


_Move = tuple[Path, Path]


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[tuple[Path, list[_Move]]]:
    """Yield a folder to write to, and the moves that are made at the end, all or none.

    Raises FileError if something cannot be written, and then leaves nothing behind.
    """
    folder = Path(os.path.realpath(folder))
    stage: Path | None = None
    moves: list[_Move] = []
    done: list[Path] = []
    is_new = file_kind(folder) is None
    try:
        stage = _create_stage(folder)
        yield stage, moves
        folder.mkdir(exist_ok=True)
        for made, target in moves:
            for path in made.rglob("*"):
                sync(path)
            move(made, target)
            done.append(target)
    except BaseException as error:
        for target in done:
            shutil.rmtree(target, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, Error):  # some are an OSError as well
            raise
        if isinstance(error, OSError):
            raise FileError(
                f"cannot write the model repository '{folder}': {error.strerror}"
            ) from None
        raise
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _create_stage(folder: Path) -> Path:
    """Create a folder from which models can be moved into a repository. Raises OSError.

    It is beside the repository, where no server looks; or in it, if that is a mounted volume or its
    parent may not be written.
    """
    name = f".{folder.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    stage = folder.parent / name
    if file_kind(folder) is None:
        stage.mkdir(parents=True)
        return stage
    try:
        stage.mkdir()
        probe = stage.rename(folder / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            stage.rmdir()
        if error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        stage = folder / name
        stage.mkdir()
        return stage
    return probe.rename(stage)
