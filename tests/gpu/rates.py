"""How often something can be called in a second."""

import time

ROUNDS, SECONDS = 3, 0.15


def rate(call, rows):
    """Rows per second of the best of a few rounds, once the first calls are over."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    calls = max(1, int(SECONDS / (time.perf_counter() - start)))
    best = 0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = max(best, rows * calls / (time.perf_counter() - start))
    return best
