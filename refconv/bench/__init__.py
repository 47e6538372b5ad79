"""Benchmarks: the ratio of refconv's time to that of each peer, with every peer in its own process."""
