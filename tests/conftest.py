"""How hard Hypothesis searches: `pytest --hypothesis-profile long` for a night, nothing for every day."""

from hypothesis import HealthCheck, settings

settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
