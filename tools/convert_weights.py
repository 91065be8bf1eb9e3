"""Converts weights of any format that resrt knows into the safetensors file that it reads at once.

python tools/convert_weights.py ResNet50_pretrained.pdparams resnet50.safetensors
"""

import sys

from resrt.operations.convert import convert

source, destination = sys.argv[1:]
for name, value in convert(source, destination).items():
    print(f"{name}: {value}")
