"""Where a run is trained: the plan, the decision and the rented machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
