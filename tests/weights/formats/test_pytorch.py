"""PyTorch's files: files that torch.save wrote, and invalid ones."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

import resrt
from resrt import weights
from support.samples import SAMPLES, Arrays, assert_holds, bfloat16, bounded_memory, numbers, text

KINDS = ("torch_plain.pth", "torch_legacy.pth")


def storage(kind: str = "FloatStorage", key: str = "0", size: int = 6) -> bytes:
    """Return a pickle's opcodes for a storage."""
    return (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    ) + (b"J" + struct.pack("<i", size) + b"tQ")


def tensor(
    shape: object = (2, 3), strides: object = (3, 1), offset: int = 0, **of: object
) -> bytes:
    """Return a pickle's opcodes for a tensor."""
    arguments = storage(**of) + b"".join(
        pickle.dumps(value, 2)[2:-1] for value in (offset, shape, strides)
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89NtR"


def state(*tensors: bytes) -> bytes:
    """Return a pickle of a state dict."""
    items = b"".join(text(f"x{index}") + tensor for index, tensor in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


def archive(
    data: bytes, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> bytes:
    """Return a file like torch.save's, with a pickle and one storage of six float32."""
    contents = {"data.pkl": data, "data/0": np.arange(6, dtype="<f4").tobytes()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, content in {**contents, **(members or {})}.items():
            opened.writestr(f"archive/{name}", content)
    return file.getvalue()


def legacy(data: bytes, size: int = 6, keys: object = ["0"], little: bool = True) -> bytes:
    system = {"protocol_version": 1001, "little_endian": little}
    begin = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    numbers = np.arange(6, dtype="<f4").tobytes()
    return b"".join([*begin, data, pickle.dumps(keys, 2), struct.pack("<q", size), numbers])


def read(path: Path, content: bytes) -> Arrays:
    path.write_bytes(content)
    return dict(weights.read(path).arrays)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pth"


@pytest.mark.parametrize("name", KINDS)
def test_plain(name: str) -> None:
    checkpoint = assert_holds(SAMPLES / name, numbers())
    assert checkpoint.format == "PyTorch's .pth"
    assert not checkpoint.metadata
    assert checkpoint.arrays["bn1.num_batches_tracked"] == 7


def test_narrow_floats() -> None:
    assert_holds(SAMPLES / "torch_bfloat16.pth", bfloat16(numbers()))
    half = {name: array.astype(np.float16) for name, array in numbers().items()}
    assert_holds(SAMPLES / "torch_float16_legacy.pth", half)


def test_bfloat16_in_most_of_a_file(path: Path) -> None:
    """Widened, it is larger than the file, which does not mean that arrays share bytes."""
    of = tensor((1 << 16,), (1,), kind="BFloat16Storage", size=1 << 16)
    ones = np.full(1 << 16, 0x3F80, "<u2").tobytes()
    assert read(path, archive(state(of), {"data/0": ones}))["x0"].sum() == 1 << 16


def test_the_state_of_a_module() -> None:
    arrays = weights.read(SAMPLES / "torch_module_state.pth").arrays
    assert {name: array.shape for name, array in arrays.items()} == {
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }


@pytest.mark.parametrize("name", ["torch_training.pth", "torch_training_legacy.pth"])
def test_a_training_checkpoint(name: str) -> None:
    raw = numbers()  # without DataParallel's prefix
    average = {k: v + 1 for k, v in raw.items()}
    checkpoint = assert_holds(SAMPLES / name, average)
    assert checkpoint.metadata["entry"] == "state_dict_ema"
    assert checkpoint.metadata["also"].startswith("epoch, arch, state_dict, optimizer")
    assert checkpoint.metadata["architecture"] == "resnet50d"
    chosen = weights.read(SAMPLES / name, key="state_dict")
    assert chosen.metadata["entry"] == "state_dict"
    for key, array in raw.items():
        np.testing.assert_array_equal(chosen.arrays[key], array)
    with pytest.raises(
        resrt.WeightsError,
        match="no entry and no parameters under nothing; it has entries state_dict_ema, epoch, arch"
        ", state_dict, .*names that begin with module",
    ):
        weights.read(SAMPLES / name, key="nothing")


def test_views_of_one_storage() -> None:
    shared = np.arange(24, dtype=np.float64)
    expected = {
        "whole": shared,
        "tail": shared[16:],
        "transposed": shared.reshape(4, 6).T,
        "columns": shared.reshape(4, 6)[:, 1:5:2],
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones(2, np.float32),
    }
    # The storages are small, so the views' total size is less than that of the file.
    assert_holds(SAMPLES / "torch_views.pth", expected)


def test_arrays_are_views_of_the_file() -> None:
    for array in weights.read(SAMPLES / "torch_plain.pth").arrays.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("entries", "taken"),
    [
        (["state_dict", "state_dict_ema"], "state_dict_ema"),
        (["model_ema", "model"], "model_ema"),
        (["optimizer", "model_ema"], "model_ema"),
        (["optimizer", "model"], "model"),
        (["ema"], "ema"),
    ],
)
def test_a_moving_average_is_preferred(
    entries: list[str], taken: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = {name: [index] for index, name in enumerate(entries)}
    data = b"\x80\x02}("
    for name, (index,) in values.items():
        data += text(name) + b"}" + text("module.x") + tensor((1,), (1,), index) + b"s"
    path.write_bytes(archive(data + b"u."))
    checkpoint = weights.read(path)
    assert checkpoint.metadata["entry"] == taken
    assert checkpoint.metadata.get("also", "") == ", ".join(n for n in entries if n != taken)
    np.testing.assert_array_equal(checkpoint.arrays["x"], values[taken])
    has_both = {*entries} & {"state_dict", "model"} and "ema" in taken
    assert (f"took the moving average of the weights, {taken}" in caplog.text) == bool(has_both)
    for index, entry in enumerate(entries):
        np.testing.assert_array_equal(weights.read(path, key=entry).arrays["x"], [index])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes(prefix: str, path: Path) -> None:
    one = tensor((1,), (1,))
    data = b"}(" + text("n_averaged") + one + text(f"{prefix}a") + one + text(f"{prefix}b") + one
    assert read(path, archive(data + b"u.")).keys() == {"a", "b"}
    data = b"}(" + text("other") + one + text(f"{prefix}a") + one + b"u."
    assert read(path, archive(data)).keys() == {"other", f"{prefix}a"}


def test_a_dtype_without_a_storage_class(path: Path) -> None:
    rebuild = (
        b"ctorch._utils\n_rebuild_tensor_v3\n("
        + storage("UntypedStorage", size=24)
        + b"K\x01K\x05\x85K\x01\x85\x89Nctorch\nfloat32\ntR"
    )
    np.testing.assert_array_equal(read(path, archive(state(rebuild)))["x0"], [1, 2, 3, 4, 5])


def test_a_tensor_with_attributes(path: Path) -> None:
    made = tensor()
    function, arguments = made[: made.index(b"(")], made[made.index(b"(") : -1]
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\n("
    of = rebuild + function + b"ctorch\nTensor\n" + arguments + b"}tR"
    assert read(path, archive(state(of)))["x0"].shape == (2, 3)
    nested = rebuild + rebuild[:-1] + b"ctorch\nTensor\n)}tR"
    with pytest.raises(resrt.WeightsError, match="a tensor is created by an unsupported call"):
        read(path, archive(state(nested)))


def test_numpy_arrays_in_a_state_dict(path: Path) -> None:
    path.write_bytes(archive(pickle.dumps(OrderedDict(x=np.arange(3.0)), 2)))
    np.testing.assert_array_equal(weights.read(path).arrays["x"], [0, 1, 2])


def test_a_state_dict_fits_its_graph(small_graph: resrt.Graph, path: Path) -> None:
    members, tensors, expected = {}, b"", {}
    rng = np.random.default_rng(4)
    for index, p in enumerate(small_graph.parameters):
        expected[p.name] = rng.uniform(0.1, 1, p.shape).astype(np.float32)
        members[f"data/{index}"] = expected[p.name].tobytes()
        strides = tuple(s // 4 for s in expected[p.name].strides)
        size = expected[p.name].size
        tensors += text(f"module.{p.name}") + tensor(p.shape, strides, key=str(index), size=size)
    path.write_bytes(archive(b"}(" + tensors + b"u.", members))
    fitted = weights.load(path, small_graph)
    assert fitted.keys() == expected.keys()
    for name, array in fitted.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_whole_module() -> None:
    with pytest.raises(
        resrt.WeightsError,
        match=r"torch_module.pth' contains an object of the class 'torch.nn.modules.container."
        r"Sequential'.*a whole module.*torch.save\(model.state_dict\(\), path\)",
    ):
        weights.read(SAMPLES / "torch_module.pth")


def test_a_whole_module_with_its_source(path: Path) -> None:
    """The legacy format wrote it as a persistent id of the class and its source."""
    data = (
        b"\x80\x02(" + text("module") + b"cnet\nNet\n" + text("net.py") + text("class Net") + b"tQ."
    )
    path.write_bytes(legacy(data))
    with pytest.raises(resrt.WeightsError, match=r"class 'net.Net', probably a whole module"):
        weights.read(path)


@pytest.mark.parametrize("member", ["constants.pkl", "code/__torch__.py"])
def test_torchscript(member: str, path: Path) -> None:
    path.write_bytes(archive(state(tensor()), {member: b""}))
    with pytest.raises(
        resrt.WeightsError, match=r"TorchScript archive.*save its weights with torch.save\(model"
    ):
        weights.read(path)


@pytest.mark.parametrize("name", ["torch_script.pt", "torch_trace.pt", "torch_export.pt"])
def test_programs(name: str) -> None:
    arrays = weights.read(SAMPLES / name).arrays
    assert set(arrays) - set(numbers()) <= {
        "bn1.bias",
        "bn1.running_mean",
        "bn1.num_batches_tracked",
    }
    for key, array in numbers().items():
        np.testing.assert_array_equal(arrays[key], array)


def test_a_frozen_program() -> None:
    with pytest.raises(resrt.WeightsError, match=r"torch_frozen.pt' is a TorchScript .* frozen"):
        weights.read(SAMPLES / "torch_frozen.pt")


def test_a_module_that_contains_itself_many_times(path: Path) -> None:
    """Each level has the level below it twice, so that there are 2**60 names."""
    data = tensor()
    for _ in range(60):
        data = b"c__torch__\nM\n)\x81}(" + text("a") + data + b"q\x01" + text("b") + b"h\x01ub"
    path.write_bytes(archive(data + b".", {"constants.pkl": b""}))
    with bounded_memory(32 << 20), pytest.raises(resrt.WeightsError, match="have more than 50000"):
        weights.read(path)


@pytest.mark.parametrize("suffix", ["", "_legacy"])
@pytest.mark.parametrize("kind", ["objects", "flat_objects"])
def test_objects_beside_the_tensors_are_left_aside(kind: str, suffix: str) -> None:
    """An optimiser, a scheduler and an OmegaConf; nothing of them is created or called."""
    checkpoint = weights.read(SAMPLES / f"torch_{kind}{suffix}.pth")
    for key, array in numbers().items():
        np.testing.assert_array_equal(checkpoint.arrays[key], array)
    others = ["optimizer", "scheduler", "config", "when", "names"]
    if kind == "objects":
        assert checkpoint.metadata["also"] == ", ".join(others)
    else:
        assert list(checkpoint.left_aside) == others


@pytest.mark.parametrize("suffix", ["", "_legacy"])
def test_a_quantised_state_dict(suffix: str) -> None:
    with pytest.raises(resrt.WeightsError, match=r"is a quantised state dict .*before it is quant"):
        weights.read(SAMPLES / f"torch_quantised{suffix}.pth")


@pytest.mark.parametrize("value", [b"K\x05", b"]", b"}", text("x"), b"cos\nsystem\n)R"])
def test_other_values_beside_tensors_are_left_aside(value: bytes, path: Path) -> None:
    data = b"}(" + text("a") + tensor() + text("epoch") + value + b"u."
    path.write_bytes(archive(data))
    checkpoint = weights.read(path)
    assert checkpoint.arrays.keys() == {"a"}
    assert checkpoint.left_aside == ("epoch",)


def test_a_state_dict_under_an_unusual_name(path: Path) -> None:
    one = b"}" + text("conv1.weight") + tensor((1, 1, 2, 3), (6, 6, 3, 1)) + b"s"
    data = (
        b"}(" + text("generator") + one + text("loss") + b"}" + text("weight") + tensor() + b"su."
    )
    path.write_bytes(archive(data))
    assert weights.read(path).metadata["entry"] == "generator"
    path.write_bytes(archive(b"}(" + text("one") + one + text("two") + one + b"u."))
    with pytest.raises(resrt.WeightsError, match=r"several state dicts: one, two; choose one with"):
        weights.read(path)
    assert weights.read(path, key="two").arrays.keys() == {"conv1.weight"}


def test_a_state_dict_inside_an_entry(path: Path) -> None:
    inner = b"}" + text("module") + b"}" + text("a") + tensor() + b"ss"
    path.write_bytes(archive(b"}(" + text("ema") + inner + text("epoch") + b"K\x05u."))
    assert weights.read(path).arrays.keys() == {"a"}
    assert weights.read(path, key="ema.module").arrays.keys() == {"a"}


@pytest.mark.parametrize("make", [archive, legacy])
@pytest.mark.parametrize(
    "call",
    [
        b"cos\nsystem\n" + text("ls") + b"\x85R",
        b"cbuiltins\neval\n" + text("1") + b"\x85R",
        b"ctorch.hub\nload\n" + text("x") + b"\x85R",
        b"ctorch\nFloatStorage\n)R",
        b"ctorch\nload\n" + text("x") + b"\x85R",
        b"ctorch._utils\n_rebuild_qtensor\n)R",
    ],
)
def test_calls_are_rejected(make: object, call: bytes, path: Path) -> None:
    path.write_bytes(make(state(call)))  # type: ignore[operator]
    with pytest.raises(
        resrt.WeightsError, match=r"model.pth' is a pickle that asks for .*not executed. Do not"
    ):
        weights.read(path)


@pytest.mark.parametrize("make", [archive, legacy])
@pytest.mark.parametrize(
    ("of", "message"),
    [
        (tensor((2, 4), (3, 1)), r"shape \(2, 4\) ends at element 6 of its storage, which has 6"),
        (tensor((2, 3), (1 << 40, 1)), "ends at element 1099511627778"),
        (tensor(offset=1), "ends at element 6"),
        (tensor(offset=-1), "invalid offset or strides"),
        (tensor((2, 3), (3, -1)), "shape contains -1"),
        (tensor((2, -3)), "shape contains -3"),
        (tensor((2, 3), (3,)), "invalid offset or strides"),
        (tensor((2, 2.5)), "shape contains 2.5"),
        (tensor("xx"), "shape is 'xx'"),
        (tensor((1,) * 17), "shape is a tuple"),
        (tensor((1 << 40, 1 << 40), (0, 0)), "is too large"),
        (tensor((1 << 45,), (0,)), "add up to"),
        (tensor((1 << 31,), (0,)), "add up to"),
        (tensor(kind="FooStorage"), "FooStorage"),
        (tensor(size=-1), "storage of -1 elements"),
        (tensor() + b"0" + tensor(kind="HalfStorage"), "two different sizes or types"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR", "no storage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NtR", "invalid arguments"),
        (b"NQ", "not a storage"),
    ],
)
def test_malformed_tensors(make: object, of: bytes, message: str, path: Path) -> None:
    path.write_bytes(make(state(of)))  # type: ignore[operator]
    with bounded_memory(8 << 20), pytest.raises(resrt.WeightsError, match=message):
        weights.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            archive(state(tensor(key="7"))),
            r"is not a valid PyTorch file \(its member 'archive/data/7'",
        ),
        (archive(state(tensor(size=7))), "has 24 bytes, expected 28"),
        (archive(state(tensor()), method=zipfile.ZIP_DEFLATED), "is compressed, which PyTorch"),
        (archive(state(tensor()), {"byteorder": b"big"}), "big-endian"),
        (legacy(state(tensor()), little=False), "big-endian"),
        (legacy(state(tensor()), size=7), "has 7 elements, not 6"),
        (legacy(state(tensor(size=7)), size=7), r"truncated: storage '0' ends at byte \d+ of"),
        (legacy(state(tensor()), keys=["1"]), "list of storages has '1'"),
        (legacy(state(tensor()), keys=[[]]), "list of storages has a list"),
        (legacy(state(tensor()), keys=[]), "storage is missing"),
        (legacy(state(tensor()), keys=None), "list of storages is not a list"),
        (archive(b"\x80\x02]."), "contains a list, not a state dict"),
        (archive(state()), r"contains no state dict under any usual name \(found: nothing\); load"),
        (archive(b"}" + text("epoch") + b"K\x01s."), r"\(found: 'epoch'\); load"),
        (
            archive(b"}(" + text("a") + tensor() + text("b") + b"Nu."),
            "entry 'b' that is not a parameter's tensor",
        ),
        (archive(b"}(" + text("a") + tensor() + b"K\x05" + tensor() + b"u."), "entry 5 that is"),
    ],
)
def test_invalid_files(content: bytes, message: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(resrt.WeightsError, match=f"^'.*model.pth'.*{message}"):
        weights.read(path)


@pytest.mark.parametrize("name", KINDS)
def test_truncated_files(name: str, path: Path) -> None:
    """The format is still recognised from the first 60 bytes."""
    whole = (SAMPLES / name).read_bytes()
    for size in range(60, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(
            resrt.WeightsError, match=r"is not a valid PyTorch file .*truncated.*again"
        ):
            weights.read(path)


def test_damaged_files(path: Path) -> None:
    path.write_bytes(archive(state(tensor())).replace(b"\x80\x3f", b"\x80\x3e"))
    with pytest.raises(resrt.WeightsError, match="its member 'archive/data/0' is damaged"):
        weights.read(path)


def test_storages_that_do_not_belong_to_the_weights_are_not_read(path: Path) -> None:
    data = b"}(" + text("state_dict") + b"}" + text("x") + tensor() + b"s"
    data += text("optimizer") + b"]" + tensor(key="missing", size=1 << 30) + b"au."
    assert read(path, archive(data)).keys() == {"x"}


def test_without_checksums(path: Path) -> None:
    """PyTorch writes zeros after torch.serialization.set_crc32_options(False)."""
    content = archive(state(tensor()))
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        for member in opened.infolist():
            content = content.replace(struct.pack("<I", member.CRC), bytes(4))
    assert read(path, content)["x0"].shape == (2, 3)


def test_many_views_of_one_storage_are_rejected(path: Path) -> None:
    """They are only views so far, but each would be converted on its own."""
    size = 1 << 20
    members = {"data/0": bytes(size)}
    of = {"kind": "BFloat16Storage", "size": size // 2}
    content = archive(state(*[tensor((size // 2,), (1,), **of)] * 1000), members)  # type: ignore[arg-type]
    path.write_bytes(content)
    with bounded_memory(8 << 20), pytest.raises(resrt.WeightsError, match="arrays add up to"):
        weights.read(path)


def test_the_tar_format(path: Path) -> None:
    path.write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar".ljust(300, b"\0"))
    with pytest.raises(resrt.WeightsError, match=r"tar format .*before version 0.1.10; load"):
        weights.read(path)
