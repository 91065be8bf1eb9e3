"""One module or package per verb: `resrt.VERB` is `operations/VERB.py`."""

import lazy_loader

# These two are public modules: resrt.demo, resrt.records.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules={"demo", "records"})
