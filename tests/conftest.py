"""Hypothesis for all tests: the same examples on every run (HYPOTHESIS_PROFILE=search draws new ones), and no clock."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("repeat", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
