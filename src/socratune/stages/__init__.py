"""The stages of a run: each reads files of the run folder and writes files of the run folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
