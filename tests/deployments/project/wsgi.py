"""As a user writes it; where the test says so, with a call that is made before the server forks."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

if "CALL_BEFORE_FORK" in os.environ:
    from llm_pool import pool

    pool.complete("before the fork")
