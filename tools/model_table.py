"""Prints the README's table of published networks: our costs beside the published ones."""

import resrt

WRONG = " ¹"  # the published figure is off by over 1 %; the README says why

print("| network | input | parameters (M) | published | GFLOPs | published | top-1 | top-5 |")
print("|---|---|---|---|---|---|---|---|")
for model in resrt.list_models():
    published = model.published
    if published is None:
        continue
    cost = resrt.build_graph(model.name).cost
    gflops = 2e-9 * cost.multiply_adds
    mark = WRONG if abs(gflops / published.gflops - 1) > 0.01 else ""
    print(
        f"| `{model.name}` | {model.input_size} | {cost.parameters / 1e6:.2f} "
        f"| {published.mparams:.2f} | {gflops:.2f} | {published.gflops:.2f}{mark} "
        f"| {published.top1:.2%} | {published.top5:.2%} |"
    )
