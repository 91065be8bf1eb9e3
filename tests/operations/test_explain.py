"""`Engine.explain` and `resrt classify --explain`: exact class activation maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import resrt
from resrt import _core, cli
from resrt.operations.explain import OverlayFolder
from support.paths import PHOTOS

OUTPUTS = ["logits", "cam"]

# Plain, with squeeze-and-excitation, with split attention, with a last 1x1 convolution, and without
# a stem that pools.
NETWORKS = ["resnet18", "seresnet50", "ResNeSt50", "regnetz_040", "cifar_resnet20"]


def build(model: str | resrt.ResNet, **options: object) -> resrt.Engine:
    settings = {"input_size": 64, "precision": "fp32", "max_batch": 2, "outputs": OUTPUTS}
    return resrt.build(model, "random", **(settings | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> resrt.Engine:
    return build(resrt.ResNet(depths=[1, 1], width=8), classes=5)


@pytest.mark.parametrize("name", NETWORKS)
def test_means_of_the_maps_and_the_bias_are_the_logits(name: str) -> None:
    graph = resrt.build_graph(name, input_size=64)
    bias = _core.random_weights(graph, 0)[f"{graph.layers[-1].name}.bias"]
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64), np.float32)
    outputs = build(name).infer(batch)
    assert isinstance(outputs, dict)
    assert outputs["cam"].ndim == 4
    usual = build(name, outputs=None).infer(batch)
    assert isinstance(usual, np.ndarray)
    tolerance = 1e-5 * np.abs(usual).max()
    np.testing.assert_allclose(outputs["logits"], usual, rtol=0, atol=tolerance)
    means = outputs["cam"].mean((2, 3))
    np.testing.assert_allclose(means + bias, usual, rtol=0, atol=tolerance)


def test_maps_of_an_engine_file_and_of_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    batch = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    built = build("resnet18", outputs=["cam"])
    built.save(tmp_path / "a.engine")
    expected = built.infer(batch)
    np.testing.assert_array_equal(resrt.load(tmp_path / "a.engine").infer(batch), expected)
    resrt.export("resnet18", tmp_path / "a.onnx", "random", input_size=64, outputs=["cam"])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (maps,) = session.run(["cam"], {"images": batch})
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5 * np.abs(maps).max())


def test_a_network_of_another_end_has_no_maps() -> None:
    graph = resrt.Graph("flat")
    x = graph.add("input", resrt.layers.Input(3, 8, 8))
    x = graph.add("conv", resrt.layers.Conv2d(4, kernel=8, bias=True), [x])
    graph.add("fc", resrt.layers.Linear(2), [x])
    with pytest.raises(resrt.ModelError, match=r"no output 'cam'; choose from .*'logits', or"):
        resrt.build(graph, "random", outputs=["cam"])


@pytest.mark.parametrize("index", [None, 3])
def test_explanation(engine: resrt.Engine, index: int | None) -> None:
    found = engine.explain(PHOTOS / "china.jpg", index)
    (ranked,) = engine.classify(PHOTOS / "china.jpg", topk=5)
    expected = ranked[0] if index is None else next(one for one in ranked if one.index == index)
    assert found.prediction == expected
    batch = resrt.preprocess(PHOTOS / "china.jpg", engine.info.preprocessing)[None]
    maps = engine.outputs(batch, "cam")["cam"][0]
    np.testing.assert_allclose(found.map, maps[expected.index], rtol=1e-5, atol=1e-6)
    assert found.photograph.size == Image.open(PHOTOS / "china.jpg").size


def test_invalid_arguments(engine: resrt.Engine) -> None:
    for index in (5, -1, 1.5):
        with pytest.raises(resrt.InputError, match="index must|has the classes 0 to 4, not 5"):
            engine.explain(PHOTOS / "china.jpg", index)  # type: ignore[arg-type]
    found = engine.explain(PHOTOS / "china.jpg")
    with pytest.raises(resrt.InputError, match="opacity must be a number from 0 to 1"):
        found.overlay(opacity=2)
    with pytest.raises(resrt.InputError, match="size must be an integer"):
        found.overlay(size=0)
    plain = build(resrt.ResNet(depths=[1], width=8), classes=5, outputs=None)
    with pytest.raises(resrt.InputError, match=r"with cam among them: .* --outputs logits cam"):
        plain.explain(PHOTOS / "china.jpg")


STEPS = {
    "torchvision": {"pipeline": "torchvision", "resize": 80},
    "paddleclas": {"pipeline": "paddleclas", "resize": 80},
    "squash": {"pipeline": "squash", "resize": 70},
    "smaller": {"pipeline": "torchvision", "resize": 20},  # then the photograph is enlarged
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("size", [(300, 200), (200, 301), (640, 640)])
def test_the_region_is_what_the_network_sees(steps: str, size: tuple[int, int]) -> None:
    """An edge anywhere in the photograph is in the input where the region says."""
    preprocessing = resrt.Preprocessing(
        interpolation="bilinear", mean=[0, 0, 0], std=[1, 1, 1], **STEPS[steps]
    )
    width, height = size
    left, top, right, bottom = _core.seen_region(width, height, preprocessing, (3, 64, 64))
    assert 0 <= left < right <= width + 1e-6
    assert 0 <= top < bottom <= height + 1e-6

    def edge(pixels: npt.NDArray[np.uint8], axis: int) -> float:
        """The position, from 0 to 1, of the edge between white and black in the input."""
        inputs = _core.preprocess(pixels, preprocessing, (3, 64, 64))
        return float(inputs[0].mean(axis=axis).sum()) / 64

    for share in (0.3, 0.5, 0.7):
        x, y = round(left + share * (right - left)), round(top + share * (bottom - top))
        across = np.zeros((height, width, 3), np.uint8)
        across[:, :x] = 255
        # Half a pixel of the input is the error of sampling four pixels, as OpenCV does.
        assert edge(across, 0) == pytest.approx((x - left) / (right - left), abs=0.5 / 64)
        down = np.zeros((height, width, 3), np.uint8)
        down[:y] = 255
        assert edge(down, 1) == pytest.approx((y - top) / (bottom - top), abs=0.5 / 64)


def explanation(
    values: list[list[float]], region: tuple[float, float, float, float], size: tuple[int, int]
) -> resrt.Explanation:
    photograph = Image.new("RGB", size, (100, 100, 100))
    prediction = resrt.Prediction(0, "cat", 0.5)
    return resrt.Explanation(prediction, np.array(values, np.float32), photograph, region)


def test_colours_of_an_overlay() -> None:
    found = explanation([[0, 0, -3, 4]], (20, 10, 100, 90), (120, 100))
    pixels = np.asarray(found.overlay(opacity=1))
    grey, blue, red = (100, 100, 100), (0, 0, 128), (128, 0, 0)
    for x, y, colour in ((19, 50, grey), (50, 9, grey), (100, 50, grey), (50, 90, grey)):
        assert tuple(pixels[y, x]) == colour  # outside of the region
    assert tuple(pixels[50, 20]) == tuple(pixels[10, 50]) == blue
    assert tuple(pixels[89, 99]) == red  # the largest value, in the last quarter
    assert tuple(pixels[50, 79]) != red
    half = np.asarray(found.overlay())
    assert tuple(half[50, 20]) == (50, 50, 114)
    assert tuple(half[50, 19]) == grey
    np.testing.assert_array_equal(np.asarray(found.overlay(opacity=0)), np.full_like(pixels, 100))


def test_overlays_of_odd_sizes() -> None:
    wide = explanation([[1, 0]], (900.5, 0, 1000.25, 100), (2000, 100)).overlay(size=500)
    assert wide.size == (500, 25)
    changed = np.any(np.asarray(wide) != 100, axis=(0, 2))
    assert (changed.argmax(), 500 - changed[::-1].argmax()) == (226, 250)
    # A region that is thinner than a pixel, and values that are not finite.
    assert explanation([[1]], (0.5, 0, 0.9, 1), (1000, 2)).overlay(size=10).size == (10, 1)
    nowhere = explanation([[np.nan, np.inf], [-1, 0]], (0, 0, 4, 4), (4, 4)).overlay(opacity=1)
    assert {tuple(pixel) for pixel in np.asarray(nowhere).reshape(-1, 3)} == {(0, 0, 128)}


def test_the_command(
    engine: resrt.Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine.save(tmp_path / "x.engine")
    photos = tmp_path / "photos" / "deeper"
    photos.mkdir(parents=True)
    Image.open(PHOTOS / "china.jpg").resize((160, 107)).save(photos / "a.png")
    (photos / "b.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    maps = tmp_path / "maps"
    arguments = ["classify", "x.engine", "photos", "--explain", "maps", "--quiet"]
    assert cli.main(arguments) == 3
    (written,) = (path for path in maps.rglob("*") if path.is_file())
    assert written.relative_to(maps) == Path("photos/deeper/a.png.cam.jpg")
    overlay = np.asarray(Image.open(written), np.float32)
    expected = np.asarray(engine.explain(photos / "a.png").overlay(), np.float32)
    assert np.abs(overlay - expected).mean() < 5  # as JPEG
    capsys.readouterr()
    assert cli.main(arguments) == 1
    assert "the folder 'maps' is not empty; " in capsys.readouterr().err
    written.unlink()
    assert cli.main([*arguments, "--overwrite"]) == 3
    assert written.exists()
    monkeypatch.chdir(tmp_path / "photos")
    folder = OverlayFolder("m")
    assert folder.path("../x/a.jpg") == Path("m", *(tmp_path / "x").parts[1:], "a.jpg.cam.jpg")
    assert folder.path("./deeper/../a.jpg") == Path("m/a.jpg.cam.jpg")
    # A file system has names of at most 255 bytes.
    shortened = {folder.path(name).name for name in ("ä" * 124 + "xa.jpg", "ä" * 124 + "xb.jpg")}
    assert len(shortened) == 2
    for name in shortened:
        assert len(name.encode()) <= 255
        assert name.startswith("ä" * 100)
        assert name.endswith(".cam.jpg")
    assert folder.path("a" * 247).name == "a" * 247 + ".cam.jpg"


def test_pictures_that_cannot_be_written_end_the_run(engine: resrt.Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = resrt.classify(engine, [PHOTOS / "china.jpg"], explain=tmp_path / "file")
    with pytest.raises(resrt.FileError, match="cannot create"):
        list(found)
