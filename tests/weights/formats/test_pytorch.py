"""PyTorch's files: what torch.save wrote, and what no torch.save would."""

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
    """A pickle's opcodes for a storage."""
    return (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    ) + (b"J" + struct.pack("<i", size) + b"tQ")


def tensor(
    shape: object = (2, 3), strides: object = (3, 1), offset: int = 0, **of: object
) -> bytes:
    """A pickle's opcodes for a tensor."""
    arguments = storage(**of) + b"".join(
        pickle.dumps(value, 2)[2:-1] for value in (offset, shape, strides)
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89NtR"


def state(*tensors: bytes) -> bytes:
    """A pickle of a state dict."""
    items = b"".join(text(f"x{index}") + tensor for index, tensor in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


def archive(
    data: bytes, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED
) -> bytes:
    """A file as torch.save writes it, of a pickle and one storage of six float32."""
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


def test_bfloat16_for_the_most_of_a_file(path: Path) -> None:
    """Widened, it takes more than the file has: which is no sign that arrays repeat its bytes."""
    of = tensor((1 << 16,), (1,), kind="BFloat16Storage", size=1 << 16)
    ones = np.full(1 << 16, 0x3F80, "<u2").tobytes()
    assert read(path, archive(state(of), {"data/0": ones}))["x0"].sum() == 1 << 16


def test_a_modules_state() -> None:
    arrays = weights.read(SAMPLES / "torch_module_state.pth").arrays
    assert {name: array.shape for name, array in arrays.items()} == {
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }


@pytest.mark.parametrize("name", ["torch_training.pth", "torch_training_legacy.pth"])
def test_a_checkpoint_of_training(name: str) -> None:
    checkpoint = assert_holds(SAMPLES / name, numbers())  # without DataParallel's prefix
    assert checkpoint.metadata["entry"] == "state_dict"
    assert checkpoint.metadata["also"].startswith("epoch, arch, state_dict_ema, optimizer")


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
    # Over small storages, the sum of the views is within the size of the file.
    assert_holds(SAMPLES / "torch_views.pth", expected)


def test_the_arrays_are_where_they_lie() -> None:
    for array in weights.read(SAMPLES / "torch_plain.pth").arrays.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("entries", "taken"),
    [
        (["state_dict", "state_dict_ema"], "state_dict"),
        (["model_ema", "model"], "model"),
        (["optimizer", "model_ema"], "model_ema"),
        (["ema"], "ema"),
    ],
)
def test_the_plain_state_is_taken_unless_there_is_none(
    entries: list[str], taken: str, path: Path
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


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes(prefix: str, path: Path) -> None:
    one = tensor((1,), (1,))
    data = b"}(" + text("n_averaged") + one + text(f"{prefix}a") + one + text(f"{prefix}b") + one
    assert read(path, archive(data + b"u.")).keys() == {"a", "b"}
    data = b"}(" + text("other") + one + text(f"{prefix}a") + one + b"u."
    assert read(path, archive(data)).keys() == {"other", f"{prefix}a"}


def test_a_dtype_without_a_class_of_storages(path: Path) -> None:
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
    with pytest.raises(resrt.WeightsError, match="a tensor in it is made in an odd way"):
        read(path, archive(state(nested)))


def test_numpy_arrays_in_a_state_dict(path: Path) -> None:
    path.write_bytes(archive(pickle.dumps(OrderedDict(x=np.arange(3.0)), 2)))
    np.testing.assert_array_equal(weights.read(path).arrays["x"], [0, 1, 2])


def test_fits(small_graph: resrt.Graph, path: Path) -> None:
    """A state dict for a graph, with a storage for each of its parameters."""
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
        match=r"torch_module.pth' holds an object of the class 'torch.nn.modules.container."
        r"Sequential'.*whole module is saved.*torch.save\(model.state_dict\(\), path\)",
    ):
        weights.read(SAMPLES / "torch_module.pth")


def test_a_whole_module_with_its_source(path: Path) -> None:
    """As the legacy format had it: a persistent id of the class and its source."""
    data = (
        b"\x80\x02(" + text("module") + b"cnet\nNet\n" + text("net.py") + text("class Net") + b"tQ."
    )
    path.write_bytes(legacy(data))
    with pytest.raises(resrt.WeightsError, match=r"class 'net.Net', as where a whole module"):
        weights.read(path)


@pytest.mark.parametrize("member", ["constants.pkl", "code/__torch__.py"])
def test_torchscript(member: str, path: Path) -> None:
    path.write_bytes(archive(state(tensor()), {member: b""}))
    with pytest.raises(resrt.WeightsError, match=r"TorchScript archive.*save torch.save\(model"):
        weights.read(path)


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
def test_calls_are_refused(make: object, call: bytes, path: Path) -> None:
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
        (tensor(offset=-1), "odd place"),
        (tensor((2, 3), (3, -1)), "shape has -1"),
        (tensor((2, -3)), "shape has -3"),
        (tensor((2, 3), (3,)), "odd place"),
        (tensor((2, 2.5)), "shape has 2.5"),
        (tensor("xx"), "shape is 'xx'"),
        (tensor((1,) * 17), "shape is a tuple"),
        (tensor((1 << 40, 1 << 40), (0, 0)), "beyond any size"),
        (tensor((1 << 45,), (0,)), "add up to"),
        (tensor((1 << 31,), (0,)), "add up to"),
        (tensor(kind="FooStorage"), "FooStorage"),
        (tensor(size=-1), "storage of -1 elements"),
        (tensor() + b"0" + tensor(kind="HalfStorage"), "two sizes or types"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR", "no storage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NtR", "odd arguments"),
        (b"NQ", "no storage"),
    ],
)
def test_malformed_tensors(make: object, of: bytes, message: str, path: Path) -> None:
    path.write_bytes(make(state(of)))  # type: ignore[operator]
    with bounded_memory(8 << 20), pytest.raises(resrt.WeightsError, match=message):
        weights.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(state(tensor(key="7"))), r"no sound PyTorch file \(its member 'archive/data/7'"),
        (archive(state(tensor(size=7))), "has 24 bytes, where 28 are due"),
        (archive(state(tensor()), method=zipfile.ZIP_DEFLATED), "is compressed, which PyTorch"),
        (archive(state(tensor()), {"byteorder": b"big"}), "big-endian"),
        (legacy(state(tensor()), little=False), "big-endian"),
        (legacy(state(tensor()), size=7), "has 7 elements, not 6"),
        (legacy(state(tensor(size=7)), size=7), r"cut off: storage '0' goes on to byte \d+, of"),
        (legacy(state(tensor()), keys=["1"]), "list of storages has '1'"),
        (legacy(state(tensor()), keys=[[]]), "list of storages has a list"),
        (legacy(state(tensor()), keys=[]), "storage is missing"),
        (legacy(state(tensor()), keys=None), "list of storages is none"),
        (archive(b"\x80\x02]."), "holds a list, not a state dict"),
        (archive(state()), "holds no state dict at any of its usual places, but nothing; load"),
        (archive(b"}" + text("epoch") + b"K\x01s."), "but 'epoch'; load"),
        (archive(b"}(" + text("a") + tensor() + text("b") + b"Nu."), "entry 'b' that is no tensor"),
        (archive(b"}(" + text("a") + tensor() + b"K\x05" + tensor() + b"u."), "entry 5 that is"),
    ],
)
def test_refusals(content: bytes, message: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(resrt.WeightsError, match=f"^'.*model.pth'.*{message}"):
        weights.read(path)


@pytest.mark.parametrize("name", KINDS)
def test_cut_off(name: str, path: Path) -> None:
    """However short; but from what is shorter than a beginning no format is known."""
    whole = (SAMPLES / name).read_bytes()
    for size in range(60, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(resrt.WeightsError, match=r"no sound PyTorch file .*cut off.*again"):
            weights.read(path)


def test_damaged(path: Path) -> None:
    path.write_bytes(archive(state(tensor())).replace(b"\x80\x3f", b"\x80\x3e"))
    with pytest.raises(resrt.WeightsError, match="the bytes of its member 'archive/data/0' are"):
        weights.read(path)


def test_storages_beside_the_weights_are_not_read(path: Path) -> None:
    data = b"}(" + text("state_dict") + b"}" + text("x") + tensor() + b"s"
    data += text("optimizer") + b"]" + tensor(key="missing", size=1 << 30) + b"au."
    assert read(path, archive(data)).keys() == {"x"}


def test_without_checksums(path: Path) -> None:
    """As PyTorch writes after torch.serialization.set_crc32_options(False): zeros."""
    content = archive(state(tensor()))
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        for member in opened.infolist():
            content = content.replace(struct.pack("<I", member.CRC), bytes(4))
    assert read(path, content)["x0"].shape == (2, 3)


def test_many_views_of_one_storage_are_refused(path: Path) -> None:
    """They are no more than views here, but each would be converted by itself."""
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
