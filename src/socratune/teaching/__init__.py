"""The loop of one row: attempts, verdicts, hints that do not leak, and what of it is trained on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
