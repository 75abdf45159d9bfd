"""Connections that speak HTTP/1.1 (RFC 9112)."""
