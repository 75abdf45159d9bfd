"""A pool's counters and gauges, its list of connections, and warnings about its use."""
