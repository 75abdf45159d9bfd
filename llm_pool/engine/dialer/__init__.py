"""Opens a connection to an origin: DNS, TCP, proxy tunnel and TLS."""
