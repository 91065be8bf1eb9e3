"""ResNet, ResNeSt and RegNet classifiers, from layer definitions to fast engines.

>>> import resrt
>>> engine = resrt.build("ResNeSt50")  # or weights="ResNeSt50_pretrained.pdparams"
>>> engine.classify("cat.jpg", topk=5)
>>> logits = engine.infer(batch)  # float32 (N, 3, 224, 224) -> float32 (N, 1000)
>>> engine.save("resnest50.engine")

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so that
whoever needs a part, such as a command that only lists networks, does not wait for the rest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
