"""Experiments of the commands: training one network, and comparing ways to group its channels."""
