"""Connections that speak HTTP/2 (RFC 9113)."""
