"""How property tests run: a busy machine is no reason to fail; what is too slow is measured in ``benchmarks/``."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
