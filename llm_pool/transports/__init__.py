"""httpx transports that send through the engine: ``httpx.AsyncClient`` and ``httpx.Client`` share a pool."""
