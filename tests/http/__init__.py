"""``llm_pool.http``: what a stream sends to the browser, under WSGI and ASGI."""
