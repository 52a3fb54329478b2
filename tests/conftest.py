"""What holds for every test."""

from hypothesis import HealthCheck, settings

# No test times anything: on a busy machine an example may take as long as it takes.
settings.register_profile("perdure", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perdure")
