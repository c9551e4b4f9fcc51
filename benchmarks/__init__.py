"""Programs that measure holdfast against the plain floor and its peers, in one run, as ratios.

`python -m benchmarks` runs all; see `__main__`. Every contestant of a case works on the same messages, on the same
disk, in turns, so that a machine that slows down for a while slows all of them.
"""
