"""What others see of a run: the page, the model card, exports and the OpenAI server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
