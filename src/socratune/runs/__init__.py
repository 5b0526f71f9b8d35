"""The run folder: its files, its journal, the one runner of rows, its progress and its shards."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
