"""From the name of a server to a connection: DNS, TCP, proxy, TLS."""
