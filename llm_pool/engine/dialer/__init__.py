"""From an origin to an open connection: DNS, TCP, proxy tunnel, TLS."""
