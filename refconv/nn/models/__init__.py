"""Models: functions that assemble layers."""

from refconv.nn.models.alexnet import alexnet, alexnet_towers, tower_state
from refconv.nn.models.grouping import Grouping
from refconv.nn.models.lenet5 import lenet5
from refconv.nn.models.residual import residual_network

__all__ = ["Grouping", "alexnet", "alexnet_towers", "lenet5", "residual_network", "tower_state"]
