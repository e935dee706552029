"""What the process itself is given before it serves: file descriptors, and a collector of garbage that stays away."""

import gc
import resource
from contextlib import suppress

_ALLOCATIONS = 20_000  # between two searches for garbage: what an answer or a step needs is mostly freed without one


def prepare() -> None:
    """As many files as the system allows: a live stream needs one. What was loaded until now is never garbage, and is
    not looked through again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # macOS tells of no limit, and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)
