"""Draw docs/connectivity.png and, for narrow pages, connectivity_narrow.png: python docs/draw_connectivity.py."""

from pathlib import Path

from refconv import logarithmic_groups, uniform_groups
from refconv.groups import lenet5_c3_groups
from refconv.tour.figures import connectivity_figure

KINDS = [
    ("dense", uniform_groups(32, 32, 1)),
    ("uniform, n=2 (AlexNet)", uniform_groups(32, 32, 2)),
    ("logarithmic, n=4", logarithmic_groups(32, 32, 4)),
    ("LeNet-5's layer C3", lenet5_c3_groups()),
]

if __name__ == "__main__":
    (Path(__file__).parent / "connectivity.png").write_bytes(connectivity_figure(KINDS, columns=4))
    (Path(__file__).parent / "connectivity_narrow.png").write_bytes(connectivity_figure(KINDS, columns=2))
