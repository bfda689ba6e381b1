"""Waiting for what other processes bring about."""

import time


def until(condition, seconds=120):
    """What a condition gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found
