"""The cells of examples/split_attention.ipynb run, and their results are those of the notebook."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import matplotlib as mpl
import pytest

from support import examples


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_prints_what_it_says() -> None:
    notebook = json.loads(examples.path("split_attention.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in cells:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec("".join(cell["source"]), namespace)
            kept = [output["text"] for output in cell["outputs"] if "text" in output]
            if "difference" not in printed.getvalue():  # which depends on the processor
                assert printed.getvalue() == "".join("".join(text) for text in kept)
    # The ones differ most from the other digits.
    first = namespace["first"]
    assert abs(first - first.mean(axis=0)).sum(axis=1).argmax() == 1
