"""Decodes many rows together with the weights in this process.

Two decoders answer alike. `growing` has a batch that changes its shape at every step and takes any model. `slots` has a
cache of fixed shape, so that a step is one CUDA graph, and takes models whose layers all attend to everything, or to a
window of the last tokens.
"""
