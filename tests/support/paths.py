"""Where the checkout's files are."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PHOTOS = TESTS / "data" / "photos"
