"""The tour: verify this installation, show channel groups on real images, and write a report.

It needs the packages of the extra ``refconv[tour]``. Importing this package imports none of them; each step imports its
own.
"""

from refconv.tour.run import Settings, TourResult, run_tour

__all__ = ["Settings", "TourResult", "run_tour"]
