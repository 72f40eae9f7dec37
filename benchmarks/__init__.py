"""Benchmarks: what serving costs, as ratios in one interleaved run (``make bench``)."""
