"""What holds for every test: hypothesis does not mistake a busy machine for a slow strategy, and a hang ends."""

from hypothesis import HealthCheck, settings

from watchdog import pytest_runtest_protocol as pytest_runtest_protocol

settings.register_profile("lading", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lading")
