"""Randomized smoothing: bounds, radii, accuracy curves, class counts under noise, attacks.

Arrays in, arrays out. Nothing in this package knows about files, configuration, clusters or clocks.
``bounds``, ``radius``, ``certificate``, ``accuracy`` and ``noise`` need only numpy and scipy;
``counts``, ``certify`` and ``attacks`` also need torch.
"""
