"""ONNX Runtime on the CPU, which computes in float32 whatever the engine does."""

from __future__ import annotations

import onnxruntime

from resrt.graphs.onnx_writer import INPUT, OUTPUT
from resrt.operations.compare.competitors import ONNX, Ready, Task


def prepare(task: Task, name: str) -> Ready:
    """Start a session with all optimisations, its input and output bound to memory."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(task.folder / ONNX), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    images = onnxruntime.OrtValue.ortvalue_from_numpy(task.images())
    binding.bind_ortvalue_input(INPUT, images)
    binding.bind_output(OUTPUT)
    return Ready(
        version=onnxruntime.__version__,
        precision="fp32",
        settings="all optimisations",
        run=lambda: session.run_with_iobinding(binding),
        logits=lambda: binding.copy_outputs_to_cpu()[0],
    )
