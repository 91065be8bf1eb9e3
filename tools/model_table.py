"""Print the README's table of networks: resrt's counts next to the published figures."""

import resrt
from resrt.cli.tables import Column, millions, render


def gflops(model):
    # The README explains why the figures that differ by more than 1 % are wrong.
    mark = " ¹" if abs(model.gflops / model.published.gflops - 1) > 0.01 else ""
    return f"{model.published.gflops:.2f}{mark}"


COLUMNS = (
    Column("name", "network", lambda model: f"`{model.name}`"),
    Column("input_size", "input", lambda model: model.input_size),
    Column("parameters", "parameters (M)", lambda model: model.parameters, millions),
    Column("published", "published", lambda model: model.published.mparams, "{:.2f}".format),
    Column("gflops", "GFLOPs", lambda model: model.gflops, "{:.2f}".format),
    Column("published", "published", gflops),
    Column("top1", "top-1", lambda model: model.published.top1, "{:.2%}".format),
    Column("top5", "top-5", lambda model: model.published.top5, "{:.2%}".format),
)
print(render(resrt.list_models(is_published=True), COLUMNS, "markdown"))
