"""Proof, by type checkers, that a walk over layer definitions handles all of them."""

from __future__ import annotations

from typing import NoReturn


def assert_never(definition: NoReturn) -> NoReturn:
    """Raise AssertionError for a definition that no case of a `match` handles.

    A type checker rejects the call if a definition can reach it. Python 3.11 has it in `typing`.
    """
    raise AssertionError(f"unhandled layer definition: {definition!r}")
