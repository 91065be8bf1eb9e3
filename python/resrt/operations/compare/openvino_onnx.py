"""OpenVINO on the ONNX export for this batch size, which it runs faster than one for any."""

from __future__ import annotations

import openvino

from resrt.operations.compare.competitors import ONNX, Ready, Task


def prepare(task: Task, name: str) -> Ready:
    """Compile for one stream and the least latency, in the engine's precision."""
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": task.threads,
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[task.precision],
    }
    compiled = openvino.Core().compile_model(task.folder / ONNX, "CPU", properties)
    request = compiled.create_infer_request()
    images = openvino.Tensor(task.images())
    request.set_input_tensor(images)
    return Ready(
        version=openvino.__version__.partition("-")[0],
        precision=task.precision,
        settings="latency hint, one stream",
        run=request.infer,
        logits=lambda: request.get_output_tensor().data.copy(),
    )
