"""Proves whether the adapter is better than its base, and whether it may be published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
