"""A model in this process: chat template, memory, decoding and the student that answers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
