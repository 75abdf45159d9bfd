"""The upstreams: servers that respond at once and are not the bottleneck, each in a separate process."""
