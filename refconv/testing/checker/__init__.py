"""`check_conv`: run someone's convolution, judge it, and name its mistake.

``plan`` lists the problems, ``cases`` fills them with arrays, ``calls`` runs a function with a time limit, ``examine``
judges the results of one case, ``check`` collects the failures, ``diagnose`` compares them with the catalogue of
mistakes, ``report`` prints them, and ``targets`` finds the functions named on a command line.
"""
