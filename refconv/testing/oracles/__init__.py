"""Right answers: what every result is compared with, computed without the code that is judged.

``problems`` describes a convolution and draws random ones. ``definition`` computes it, and its gradients, in plain
loops, and once more with SciPy; ``trilinear`` computes the same as one trilinear form, fast enough for hundreds of
problems a second. ``derivatives`` adds forward mode and double backward. ``bounds`` derives how far rounding may move
a right result.
"""
