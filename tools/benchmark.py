"""Times networks under random weights, as a table in Markdown: an example to copy.

python tools/benchmark.py ResNet50 ResNeSt50 RegNetX_4GF --batch 1 8

The figures are of this machine only; tools/compare_speed.py compares within one run.
"""

import argparse

import resrt

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("networks", nargs="+", help="names that resrt models lists")
parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
parser.add_argument("--precision", default="auto", choices=resrt.PRECISIONS)
parser.add_argument("--duration", type=float, default=1.0, help="seconds per batch size, at least")
options = parser.parse_args()

print("| network | precision |", *(f"batch {size} (ms) |" for size in options.batch))
print("|---|---|" + "---|" * len(options.batch))
for network in options.networks:
    engine = resrt.build(
        network, "random", precision=options.precision, max_batch=max(options.batch)
    )
    found = resrt.time(engine, batch_sizes=options.batch, duration=options.duration)
    medians = (f"{timing.median_ms:.2f} |" for timing in found.timings)
    print(f"| {network} | {found.precision} |", *medians, flush=True)
print(f"\n{found.machine}")
