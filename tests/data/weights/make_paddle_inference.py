"""Writes paddle_json.* and paddle_pdmodel.*: a small network, exported for inference by Paddle.

    pip install paddlepaddle==3.3.1 && python make_paddle_inference.py json
    pip install paddlepaddle==2.6.2 && python make_paddle_inference.py pdmodel

The network is one of PaddleClas's SE_ResNet_vd series, with few channels. Also writes its logits
for the images of a seed.
"""

import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import nn


class ConvNorm(nn.Layer):
    def __init__(self, channels, out, kernel=3, stride=1, pool=None, relu=False):
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2D(
            channels, out, kernel, stride=stride, padding=kernel // 2, bias_attr=False
        )
        self.norm = nn.BatchNorm2D(out)
        self.relu = relu

    def forward(self, x):
        x = x if self.pool is None else self.pool(x)
        x = self.norm(self.conv(x))
        return nn.functional.relu(x) if self.relu else x


class Block(nn.Layer):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.first = ConvNorm(channels, out, stride=stride, relu=True)
        self.second = ConvNorm(out, out)
        pool = nn.AvgPool2D(2, 2, padding="SAME", ceil_mode=True) if stride == 2 else None
        self.shortcut = ConvNorm(channels, out, kernel=1, pool=pool)
        self.mean = nn.AdaptiveAvgPool2D(1)
        self.squeeze = nn.Linear(out, out // 4)
        self.excite = nn.Linear(out // 4, out)

    def forward(self, x):
        y = self.second(self.first(x))
        weights = self.mean(y).squeeze(axis=[2, 3])
        weights = nn.functional.sigmoid(self.excite(nn.functional.relu(self.squeeze(weights))))
        y = y * weights.unsqueeze(axis=[2, 3])
        return nn.functional.relu(y + self.shortcut(x))


class Network(nn.Layer):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(3, 4, stride=2, relu=True),
            ConvNorm(4, 4, relu=True),
            ConvNorm(4, 8, relu=True),
            nn.MaxPool2D(3, 2, padding=1),
            Block(8, 8, 1),
            Block(8, 16, 2),
            nn.AdaptiveAvgPool2D(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        )

    def forward(self, x):
        return nn.functional.softmax(self.layers(x))


kind = sys.argv[1]
paddle.seed(0)
random = np.random.default_rng(0)
network = Network()
for name, value in network.state_dict().items():
    low, high = (0.5, 1.5) if name.endswith("_variance") else (-0.3, 0.3)
    value.set_value(random.uniform(low, high, value.shape).astype("float32"))
network.eval()
images = random.standard_normal((2, 3, 45, 45)).astype("float16").astype("float32")
logits = network.layers(paddle.to_tensor(images)).numpy()
np.savez_compressed("paddle_inference.npz", images=images.astype("float16"), logits=logits)
shape = paddle.static.InputSpec([None, 3, None, None], "float32", name="x")
paddle.jit.save(paddle.jit.to_static(network, input_spec=[shape]), f"paddle_{kind}")
if kind == "pdmodel":
    from paddle.base.proto.framework_pb2 import ProgramDesc

    # Without the lines of this file that each operator is from.
    file = Path("paddle_pdmodel.pdmodel")
    program = ProgramDesc.FromString(file.read_bytes())
    for op in program.blocks[0].ops:
        kept = [attribute for attribute in op.attrs if attribute.name != "op_callstack"]
        del op.attrs[:]
        op.attrs.extend(kept)
    file.write_bytes(program.SerializeToString())
    Path("paddle_pdmodel.pdiparams.info").unlink()
