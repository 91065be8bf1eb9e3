"""Build an engine file, as `resrt build` does; an example to copy.

python tools/build_engine.py resnest50d resnest50d.safetensors resnest50d.engine
"""

import argparse

import resrt

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("network", help="a name from resrt models")
parser.add_argument("weights", help='a weights file, "random", or "pretrained" to download them')
parser.add_argument("output", help="the engine file")
parser.add_argument("--precision", default="auto", choices=resrt.PRECISIONS)
parser.add_argument("--max-batch", type=int, default=8)
options = parser.parse_args()

engine = resrt.build(
    options.network,
    None if options.weights == "pretrained" else options.weights,
    precision=options.precision,
    max_batch=options.max_batch,
)
engine.save(options.output)
print(engine)
