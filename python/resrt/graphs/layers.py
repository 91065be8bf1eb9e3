"""The layers that a network can be made of, for `resrt.Graph.add`.

>>> import resrt
>>> from resrt import layers
>>> graph = resrt.Graph("two_layers")
>>> x = graph.add("images", layers.Input(3, 32, 32))
>>> x = graph.add("pool", layers.GlobalAvgPool2d(), x)
>>> x = graph.add("fc", layers.Linear(10), x)
>>> graph
Graph(two_layers, input 3x32x32, 10 classes, 3 layers)
"""

from resrt._core import Add as Add
from resrt._core import AvgPool2d as AvgPool2d
from resrt._core import BatchNorm2d as BatchNorm2d
from resrt._core import BlurPool2d as BlurPool2d
from resrt._core import Conv2d as Conv2d
from resrt._core import EfficientChannelAttention as EfficientChannelAttention
from resrt._core import GlobalAvgPool2d as GlobalAvgPool2d
from resrt._core import Input as Input
from resrt._core import Linear as Linear
from resrt._core import MaxPool2d as MaxPool2d
from resrt._core import PadChannels as PadChannels
from resrt._core import Quantize as Quantize
from resrt._core import Relu as Relu
from resrt._core import Silu as Silu
from resrt._core import SplitAttention as SplitAttention
from resrt._core import SqueezeExcite as SqueezeExcite
