"""The upstreams: servers that answer at once and are not the bottleneck, each in a process of its own."""
