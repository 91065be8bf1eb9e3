"""Make the files in corpus/. Those of PyTorch and Paddle are in tests/data/weights/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    rng = np.random.default_rng(5)
    arrays = {
        "conv1.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bn1.weight": rng.standard_normal(4),
        "fc.weight": np.asfortranarray(rng.standard_normal((5, 4)).astype(np.float16)),
        "fc.bias": np.zeros((0, 5), np.float32),
        "bn1.num_batches_tracked": np.array(7),
    }
    np.savez(CORPUS / "npz" / "stored.npz", **arrays)
    np.savez_compressed(CORPUS / "npz" / "deflated.npz", **arrays)
    bits = np.arange(0x3F80, 0x3F88, dtype="<u2")
    np.savez(CORPUS / "npz" / "bfloat16.npz", x=bits.view("V2"))
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        CORPUS / "safetensors" / "plain.safetensors",
        metadata={"network": "resnet50d"},
    )
    header = b'{"x":{"dtype":"BF16","shape":[2,4],"data_offsets":[0,16]}}'
    (CORPUS / "safetensors" / "bfloat16.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bits.tobytes()
    )
    for gap in ("", " "):
        lines = [f"{len(arrays)}"]
        for name, array in arrays.items():
            numbers = array.reshape(-1)[:20].astype(">f4")
            lines.append(f"{name} {len(numbers)}{gap} " + numbers.tobytes().hex(" ", 4))
        path = CORPUS / "wts" / ("wide.wts" if gap else "plain.wts")
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
