"""`resrt doctor`."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from resrt.cli.arguments import DONE, FAILED, add_shared
from resrt.cli.tables import print_json

if TYPE_CHECKING:
    from resrt import Diagnosis
    from resrt.operations.doctor import Cache, Package
    from resrt.system.limits import Limits

SUMMARY = "report what this machine can run and what is missing"
DESCRIPTION = (
    "Reports what this machine can run: processor, memory, backends, packages, the cache, GPUs. "
    "What is missing is listed with the command that installs it. The exit status is 1 if engines "
    "cannot be built or run here."
)
EXAMPLE = "resrt doctor"

# A mark, the name of the subject, and a text.
Line: TypeAlias = tuple[str, str, str]

_GOOD, _ABSENT, _BAD, _NOTE = "ok", "-", "no", ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "--format")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    import resrt

    found = resrt.doctor()
    if options.format == "json":
        print_json(found.document())
    else:
        _print(found, is_brief=options.quiet)
    return DONE if found.is_fit else FAILED


def _print(found: Diagnosis, *, is_brief: bool) -> None:
    sections = {
        f"resrt {found.resrt}": list(_machine(found)),
        "backends": list(_backends(found)),
        "packages": list(_packages(found.packages)),
        "cache of weights and engines": list(_cache(found.cache)),
        "NVIDIA GPUs": list(_gpus(found)),
    }
    indent = 7 + max(len(name) for lines in sections.values() for _, name, _ in lines)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    wrapper = textwrap.TextWrapper(
        width=max(width, 2 * indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    for title, lines in sections.items():
        shown = [line for line in lines if line[0] == _BAD or not is_brief]
        if shown:
            print(title)
        for mark, name, text in shown:
            print(wrapper.fill(f"  {mark:<2} {name}".ljust(indent) + text))
    verdict = "can run resrt." if found.is_fit else "cannot run resrt yet: see the lines marked no."
    print(f"This machine {verdict}")


def _machine(found: Diagnosis) -> Iterator[Line]:
    here, limits = found.machine, found.limits
    quota = "" if limits.cpu_quota is None else f", with a quota of {limits.cpu_quota:g}"
    yield _NOTE, "folder", found.folder
    yield _NOTE, "Python", f"{here.python} at {found.executable}"
    yield _NOTE, "system", here.system
    yield _NOTE, "processor", here.processor
    yield _NOTE, "cores", f"{limits.cores} of the machine's {limits.cores_of_machine}{quota}"
    yield _NOTE, "memory", _memory(here.memory_gib, limits)
    for feature in found.features:
        yield _GOOD if feature.is_present else _ABSENT, feature.name, f"for {feature.good_for}"


def _memory(installed: float, limits: Limits) -> str:
    parts = [f"{installed:.1f} GiB"]
    if limits.memory_available is not None:
        parts.append(f"{limits.memory_available / 2**30:.1f} GiB available")
    if limits.memory_limit is not None:
        parts.append(f"limited to {limits.memory_limit / 2**30:.1f} GiB for this process")
    return ", ".join(parts)


def _backends(found: Diagnosis) -> Iterator[Line]:
    # A missing backend is a problem only if no other one works.
    missing = _ABSENT if any(not backend.problem for backend in found.backends) else _BAD
    for backend in found.backends:
        if backend.problem:
            yield missing, backend.name, backend.problem
        else:
            precisions = ", ".join(backend.precisions)
            yield _GOOD, backend.name, f"{backend.version}: {precisions}; ran a small network"


def _packages(packages: tuple[Package, ...]) -> Iterator[Line]:
    for package in sorted(packages, key=lambda package: package.extra or ""):
        extra = f" (resrt[{package.extra}])" if package.extra else ""
        if package.problem is None:
            yield _GOOD, package.name, f"{package.version}{extra}"
        else:
            yield _ABSENT if package.extra else _BAD, package.name, package.problem


def _cache(cache: Cache) -> Iterator[Line]:
    size = f"{cache.size / 1e6:.1f} MB" if cache.exists else "created when first needed"
    yield _GOOD if cache.problem is None else _BAD, "folder", f"{cache.folder}: {size}"
    if cache.problem:
        yield _BAD, "", cache.problem
    if cache.is_offline:
        yield _NOTE, "offline", "downloads are forbidden by RESRT_OFFLINE or HF_HUB_OFFLINE"


def _gpus(found: Diagnosis) -> Iterator[Line]:
    gpus = found.gpus
    if not (gpus.cards or gpus.driver or gpus.devices):
        yield _ABSENT, "none", "not required: OpenVINO runs on the processor"
        return
    users = [b.name for b in found.backends if b.runs_on_gpu and not b.problem]
    models = ", ".join(gpus.models) or f"{gpus.cards} on the PCI bus"
    driver = f"; driver {gpus.driver}" if gpus.driver else ""
    yield _GOOD if users else _ABSENT, "found", f"{models}{driver}"
    if gpus.problem:
        yield _BAD, "", gpus.problem
    yield _NOTE, "used by", ", ".join(users) or "no backend that works here"
