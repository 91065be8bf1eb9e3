"""Prints the README's table of published networks: our costs beside the published ones."""

import resrt
from resrt.cli.tables import Column, millions, render


def gflops(model):
    # Off by over 1 %, the published figure is wrong, and the README says why.
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
