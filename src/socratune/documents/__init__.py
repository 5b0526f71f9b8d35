"""Reads documents and ArangoDB as passages, and writes questions that the passages answer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
