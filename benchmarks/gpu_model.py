"""Estimate a GPU's latency of ResNeSt50 over ResNet50's from bytes, launches and arithmetic.

    python benchmarks/gpu_model.py [--batch 1] [--device H100] [--design fastest]

Nothing here is measured on a GPU. The launches and bytes of the split-attention kernels come from
the code that launches them. --help lists the assumptions, and the output has the ratio with each of
them halved and doubled.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import defaultdict
from dataclasses import dataclass

import resrt
from resrt import _core

HALF = 2  # bytes of a value in fp16
TILES = ((64, 64), (128, 64), (64, 128), (128, 128), (256, 128))  # pixels x channels
DEPTH = 64  # inputs of a stage of a tile
STAGES = 3  # of a tile in shared memory
SPLITS = (1, 2, 4, 8, 16, 32)  # of a convolution's sum over its inputs
VARIANTS = ("passes", "tickets", "cluster")  # of the plugin


@dataclass(frozen=True)
class Device:
    """A GPU. Times in µs, rates in bytes per µs (1 TB/s is 1e6)."""

    launch: float  # of a kernel in a graph, with filling and draining the GPU
    l2_rate: float
    memory_rate: float
    resnet50: float  # ResNet50's latency in fp16 at batch 1, to which the arithmetic is fitted
    processors: int
    l2_bytes: float
    shared_memory: int  # bytes that a thread block may use
    capability: int
    largest_cluster: int
    peak: float  # multiply-adds of a multiprocessor per µs, on tensor cores
    processor_rate: float = 1.1e5  # between one multiprocessor and L2: 64 bytes a cycle
    tiles_at_once: int = 32  # the most that a multiprocessor computes
    step: float = 0.5  # a further round of dependent loads in a kernel, with its barrier


DEVICES = {
    "H100": Device(2.5, 4.5e6, 3.0e6, 400.0, 132, 50e6, 227 << 10, 90, 16, 3.6e6),
    # ResNet50's latency is the published one, of TensorRT in 2020.
    "T4": Device(2.5, 1.2e6, 0.32e6, 2638.0, 40, 4e6, 64 << 10, 75, 1, 0.8e6),
}
ASSUMED = ("launch", "l2_rate", "memory_rate", "resnet50", "processor_rate", "step")


@dataclass(frozen=True)
class Product:
    """A convolution or a linear layer: pixels x channels x inputs, in groups."""

    pixels: int
    channels: int
    inputs: int
    groups: int


@dataclass(frozen=True)
class Kernel:
    """One launch. Bytes are of activations, parameters are counted apart."""

    block: str
    bytes: int
    parameters: int = 0
    product: Product | None = None
    blocks: int | None = None  # thread blocks, where there may be fewer than multiprocessors
    steps: int = 1
    pools: bool = False  # an average pooling by itself


def kernels(name: str, batch: int, design: str, device: Device, rate: float = 1.0) -> list[Kernel]:
    """Return the launches of a network in fp16, channels last, with fused layers.

    Any design but "ordinary" folds an average pooling into the split attention before it, and one
    into the convolution after it if that takes less time at this `rate` of a tile.
    """
    layers = resrt.build_graph(name).layers
    shapes = {layer.name: layer.shape for layer in layers}
    kinds = {layer.name: layer.definition for layer in layers}
    fused = (resrt.layers.BatchNorm2d, resrt.layers.Relu)
    folds = design != "ordinary"
    pooled = {  # split attentions that are followed by a pooling
        layer.inputs[0]
        for layer in layers
        if isinstance(layer.definition, resrt.layers.AvgPool2d)
        and isinstance(kinds[layer.inputs[0]], resrt.layers.SplitAttention)
    }
    found: list[Kernel] = []
    before = ""
    for layer in layers:
        definition = layer.definition
        block = ".".join(layer.name.split(".")[:2]) if layer.name.startswith("layer") else "rest"
        outputs = batch * math.prod(layer.shape)
        inputs = [batch * math.prod(shapes[source]) for source in layer.inputs]
        parameters = sum(HALF * math.prod(p.shape) for p in layer.parameters)
        if isinstance(definition, fused):
            continue
        if isinstance(definition, resrt.layers.AvgPool2d) and folds and layer.inputs[0] in pooled:
            continue
        if isinstance(definition, resrt.layers.Input):
            # The cast to fp16, and the kernels that find images that are not finite.
            found += [Kernel(block, outputs * 6), Kernel(block, outputs * 4), Kernel(block, 0)]
        elif isinstance(definition, resrt.layers.Add):
            # Fused into the convolution before it, which then also reads the shortcut.
            last = found[-1]
            found[-1] = dataclasses.replace(last, bytes=last.bytes + inputs[1] * HALF)
        elif isinstance(definition, resrt.layers.SplitAttention):
            pools = folds and layer.name in pooled
            found += attention(block, layer, batch, design, device, pools=pools)
        else:
            product = None
            if isinstance(definition, resrt.layers.Conv2d):
                groups = definition.groups
                depth = shapes[layer.inputs[0]][0] // groups * definition.kernel**2
                pixels = batch * math.prod(layer.shape[1:])
                product = Product(pixels, layer.shape[0] // groups, depth, groups)
            elif isinstance(definition, resrt.layers.Linear):
                product = Product(batch, layer.shape[0], inputs[0] // batch, 1)
            moved = HALF * (outputs + sum(inputs))
            pools = isinstance(definition, resrt.layers.AvgPool2d)
            found.append(Kernel(block, moved, parameters, product, pools=pools))
            if folds and found[-2].pools and layer.inputs[0] == before:
                fold_pooling(found, device, rate)
        before = layer.name
    return [*found, Kernel("rest", 0)]  # the cast of the logits


def fold_pooling(found: list[Kernel], device: Device, rate: float) -> None:
    """Replace a 2x2 pooling and a 1x1 convolution by a 2x2 convolution if that takes less time."""
    pooling, convolution = found[-2:]
    product = convolution.product
    assert product is not None
    read = HALF * product.pixels * product.inputs
    folded = dataclasses.replace(
        convolution,
        bytes=convolution.bytes + 3 * read,
        parameters=4 * convolution.parameters,
        product=dataclasses.replace(product, inputs=4 * product.inputs),
    )
    apart = time_of(pooling, device, rate) + time_of(convolution, device, rate)
    if time_of(folded, device, rate) < apart:
        found[-2:] = [folded]


def attention(
    block: str, layer: _core.Layer, batch: int, design: str, device: Device, *, pools: bool
) -> list[Kernel]:
    """Return the launches of a split attention."""
    d = layer.definition
    assert isinstance(d, resrt.layers.SplitAttention)
    if design == "ordinary":  # the kernels that TensorRT for RTX lists, see rtx_plans.py
        y = batch * HALF * math.prod(layer.shape)
        parameters = sum(HALF * math.prod(p.shape) for p in layer.parameters)
        half = parameters // 2
        return [
            Kernel(block, 2 * d.radix * y),  # bias, ReLU, U0 - U1 and the means
            Kernel(block, 0),  # a cast
            Kernel(block, 0, half),
            Kernel(block, 0, half),
            Kernel(block, (d.radix + 1) * y),
        ]
    found = []
    for variant in VARIANTS if design == "fastest" else (design, "passes"):
        launches = _core._split_attention_geometry(
            *(
                d.channels,
                d.radix,
                d.cardinality,
                d.hidden,
                batch,
                *layer.shape[1:],
                pools,
                variant,
            ),
            *(device.capability, device.processors, device.shared_memory, device.largest_cluster),
        )
        kernels = [
            Kernel(
                block,
                launch["u"] + launch["y"] + launch["sums"],
                launch["products"],
                blocks=launch["blocks"],
                steps=launch["steps"],
            )
            for launch in launches
        ]
        if kernels:
            found.append(kernels)
    if design != "fastest":
        return found[0]
    return min(found, key=lambda ks: sum(time_of(k, device, 1.0) for k in ks))


def arithmetic(product: Product, device: Device, rate: float) -> float:
    """Return the µs of a matrix product with the best tiles and split, `rate` being a tile's.

    A tile alone is far from using a multiprocessor's tensor cores, because it waits for memory. So
    a multiprocessor computes as many tiles at once as its shared memory holds, up to its peak.
    """
    best = math.inf
    for height, width in TILES:
        resident = max(1, device.shared_memory // (STAGES * DEPTH * (height + width) * HALF))
        resident = min(resident, device.tiles_at_once)
        tiles = math.ceil(product.pixels / height) * math.ceil(product.channels / width)
        for split in SPLITS:
            count = tiles * product.groups * split
            work = height * width * math.ceil(product.inputs / split)
            waves = math.ceil(count / (device.processors * resident))
            busiest = math.ceil(count / device.processors)
            time = max(waves * work / rate, busiest * work / device.peak)
            if split > 1:  # float32 sums are written and read
                sums = 8 * product.pixels * product.channels * product.groups * split
                time += device.step + sums / device.l2_rate
            best = min(best, time)
    return best


def time_of(kernel: Kernel, device: Device, rate: float) -> float:
    """Return µs. `rate`: multiply-adds of a tile per µs."""
    busy = min(kernel.blocks or device.processors, device.processors)
    reach = busy * device.processor_rate
    fits = kernel.bytes < device.l2_bytes
    activations = min(device.l2_rate if fits else device.memory_rate, reach)
    seconds = kernel.bytes / activations + kernel.parameters / min(device.memory_rate, reach)
    if kernel.blocks is not None:  # parameters that many blocks read come from L2
        seconds = kernel.bytes / activations + kernel.parameters / min(device.l2_rate, reach)
    if kernel.product is not None:
        seconds = max(seconds, arithmetic(kernel.product, device, rate))
    return device.launch + seconds + (kernel.steps - 1) * device.step


def fit_rate(device: Device) -> float:
    """Return the rate at which ResNet50 at batch 1 takes the assumed time."""
    network = kernels("ResNet50", 1, "ordinary", device)

    def total(rate: float) -> float:
        return sum(time_of(kernel, device, rate) for kernel in network)

    low, high = 1.0, 1e12
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if total(middle) > device.resnet50 else (low, middle)
    return high


def totals(name: str, batch: int, design: str, device: Device) -> dict[str, tuple[int, int, float]]:
    """Return launches, bytes and µs of each block."""
    rate = fit_rate(device)
    network = kernels(name, batch, design, device, rate)
    found: defaultdict[str, tuple[int, int, float]] = defaultdict(lambda: (0, 0, 0.0))
    for kernel in network:
        launches, moved, time = found[kernel.block]
        found[kernel.block] = (
            launches + 1,
            moved + kernel.bytes + kernel.parameters,
            time + time_of(kernel, device, rate),
        )
    return dict(found)


def ratio(batch: int, design: str, device: Device) -> float:
    slow, fast = (totals(name, batch, design, device) for name in ("ResNeSt50", "ResNet50"))
    return sum(row[2] for row in slow.values()) / sum(row[2] for row in fast.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="A kernel takes a launch, plus the larger of its bytes over the rate of L2 (or of "
        "the GPU's memory, if they do not fit L2) and its arithmetic. Each further round of loads "
        "that depends on the one before takes a step. A convolution is computed in the tiles and "
        "with the split of its sum that take the least time. A tile has the rate at which ResNet50 "
        "takes the assumed time. A multiprocessor computes as many tiles at once as its shared "
        "memory holds. Parameters come from the GPU's memory. Batch normalisation, ReLU and "
        "additions are fused into convolutions, and grouped convolutions are as fast as their "
        "arithmetic.",
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=DEVICES, default="H100")
    parser.add_argument("--design", choices=("ordinary", *VARIANTS, "fastest"), default="fastest")
    options = parser.parse_args()
    device = DEVICES[options.device]
    slow = totals("ResNeSt50", options.batch, options.design, device)
    fast = totals("ResNet50", options.batch, options.design, device)
    print(f"ResNeSt50 and ResNet50 in fp16, batch {options.batch}, on {options.device}: {device}\n")
    print(f"{'block':10}{'launches':>18}{'MB':>18}{'µs':>18}")
    for block in slow:
        cells = zip(slow[block], fast[block], strict=True)
        launches, moved, time = cells
        print(
            f"{block:10}{launches[0]:9}{launches[1]:9}{moved[0] / 1e6:9.2f}{moved[1] / 1e6:9.2f}"
            f"{time[0]:9.1f}{time[1]:9.1f}"
        )
    sums = [[sum(row[i] for row in rows.values()) for rows in (slow, fast)] for i in range(3)]
    print(
        f"{'total':10}{sums[0][0]:9}{sums[0][1]:9}{sums[1][0] / 1e6:9.2f}{sums[1][1] / 1e6:9.2f}"
        f"{sums[2][0]:9.1f}{sums[2][1]:9.1f}\n"
    )
    print("the ratio with an assumption halved and doubled")
    for name in ASSUMED:
        changed = [
            dataclasses.replace(device, **{name: getattr(device, name) * factor})
            for factor in (0.5, 2.0)
        ]
        values = [ratio(options.batch, options.design, one) for one in changed]
        print(f"{name:16}{values[0]:9.2f}{values[1]:9.2f}")
    alone = dataclasses.replace(device, tiles_at_once=1)
    value = ratio(options.batch, options.design, alone)
    print(f"{'with one tile at a time on a multiprocessor':16}{value:6.2f}")
    print(f"ratio: {ratio(options.batch, options.design, device):.2f}")


if __name__ == "__main__":
    main()
