"""All fuzz targets by name. Each takes bytes, and raises on what must not be."""

from collections.abc import Callable

from tests.fuzz import pure, served

TARGETS: dict[str, Callable[[bytes], None]] = {**pure.TARGETS, **served.TARGETS}
