"""The WSGI application, as a user writes it. With CALL_BEFORE_FORK it makes a call before the fork.

HEARTBEAT_SECONDS replaces that of ``event_stream``.
"""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

if "CALL_BEFORE_FORK" in os.environ:
    from llm_pool import pool
    from tests.fixtures.forks import wait_until_others_sleep

    pool.complete("before the fork")
    wait_until_others_sleep()  # uWSGI may fork without Python's hooks

if "HEARTBEAT_SECONDS" in os.environ:
    from llm_pool.http import reading

    reading.HEARTBEAT_SECONDS = float(os.environ["HEARTBEAT_SECONDS"])
