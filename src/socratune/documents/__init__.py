"""Documents and ArangoDB read as passages, and questions written from them that the passages answer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
