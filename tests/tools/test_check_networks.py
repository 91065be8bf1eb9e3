"""tools/check_networks.py, if timm is installed: networks of the catalog compute what timm's do.

One for each parameter by which they differ; the tool compares all.
"""

from __future__ import annotations

import importlib.util

import pytest

from support.paths import ROOT

pytest.importorskip("torch")
try:
    import timm
except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch raises both
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)

spec = importlib.util.spec_from_file_location("check_networks", ROOT / "tools/check_networks.py")
assert spec is not None
assert spec.loader is not None
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "resnetaa34d",
        "resnetblur18",
        "resnetrs50",
        "seresnet18",
        "ecaresnet26t",
        "regnety_008_tv",
        "regnetv_064",
        "regnetz_005",
    ],
)
def test_logits_equal_those_of_timm(name: str) -> None:
    assert tool.difference(name, "timm") <= tool.TOLERANCE


def test_another_network_with_the_same_parameters_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """resnetblur18 has the names and shapes of resnet18."""
    monkeypatch.setitem(tool.SOURCES, "timm", lambda name: timm.create_model("resnetblur18"))
    assert tool.difference("resnet18", "timm") > 0.01
