"""The readers, and how to fuzz each."""

from __future__ import annotations

import mutators
from harness import Target
from resrt.weights.formats import npz, pdparams, pytorch, safetensors_file, wts

TARGETS = {
    target.name: target
    for target in (
        Target("safetensors", safetensors_file, "*.safetensors", mutators.mutate_safetensors),
        Target("pdparams", pdparams, "*.pdparams", mutators.mutate_pickle),
        Target("pytorch_zip", pytorch, "torch_*[!y].pth", mutators.mutate_torch_zip),
        Target("pytorch_legacy", pytorch, "torch_*legacy.pth", mutators.mutate_legacy),
        Target("torch_programs", pytorch, "torch_*.pt", mutators.mutate_torch_zip),
        Target("npz", npz, "*.npz", mutators.mutate_npz),
        Target("wts", wts, "*.wts", mutators.mutate_text),
    )
}
