"""Train a LoRA adapter on packed rows, with transformers and PEFT or with Unsloth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
