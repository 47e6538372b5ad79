"""Experiments that the commands run: training one network, and comparing ways to group its channels."""
