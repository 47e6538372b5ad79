"""`check_conv`: someone else's convolution is run, judged, and its mistake named.

``cases`` plans the problems, ``calls`` runs a function with a time limit, ``examine`` judges what one case returned,
``check`` puts the failures together and matches them with the catalogue of mistakes, ``report`` prints them, and
``targets`` finds the functions that a command line names.
"""
