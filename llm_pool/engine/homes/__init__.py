"""The event loops on which connections live, and the way to them from everywhere else."""
