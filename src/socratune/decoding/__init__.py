"""Decoding many rows together with the weights in this process.

Two ways, which answer alike: `growing` concatenates to its cache at every step and takes any model; `slots` writes into
a cache of fixed shape, so that a step is one CUDA graph, and takes models whose layers all attend to everything.
"""
