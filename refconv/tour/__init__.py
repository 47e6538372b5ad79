"""The tour: verify this installation, meet channel groups on real images, and write it all down.

It needs the extra ``refconv[tour]``. Importing this package imports none of it; each step imports what it uses.
"""

from refconv.tour.run import Settings, TourResult, run_tour

__all__ = ["Settings", "TourResult", "run_tour"]
