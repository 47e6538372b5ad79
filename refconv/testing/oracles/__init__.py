"""Right answers for every result, computed without the code under test.

``problems`` describes a convolution and draws random ones. ``definition`` computes it, and its gradients, in plain
loops, and once more with SciPy; ``trilinear`` computes the same as one trilinear form, fast enough for hundreds of
problems a second. ``derivatives`` adds forward mode and double backward. ``bounds`` derives bounds on the rounding
errors of right results.
"""
