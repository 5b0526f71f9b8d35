"""Ways of training side by side, and which of them is worth its money on your data."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
