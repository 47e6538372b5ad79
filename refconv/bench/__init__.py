"""Benchmarks: the time of a convolution as a ratio to that of its peers, each in a process of its own."""
