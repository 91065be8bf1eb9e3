"""Fast inference with ResNet, ResNeSt and RegNet image classifiers.

>>> import resrt
>>> engine = resrt.build("ResNeSt50")  # or weights="ResNeSt50_pretrained.pdparams"
>>> engine.classify("cat.jpg", topk=5)
>>> logits = engine.infer(batch)  # float32 (N, 3, 224, 224) -> float32 (N, 1000)
>>> engine.save("resnest50.engine")

`__init__.pyi` lists the public names. Each is imported on first use, so a command that only lists
networks does not load the rest of the package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.remove("torch_network")  # which requires PyTorch, so `from resrt import *` omits it
