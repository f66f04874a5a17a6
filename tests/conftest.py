"""What holds for every test: hypothesis does not mistake a busy machine for a slow strategy."""

from hypothesis import HealthCheck, settings

settings.register_profile("lading", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lading")
