"""The Django project that the servers of ``tests/deployments`` run."""
