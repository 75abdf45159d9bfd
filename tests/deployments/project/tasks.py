"""Celery tasks that use the pool and the database. The broker is a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from celery import Celery

sys.modules["trio"] = None  # type: ignore[assignment]  # httpcore imports it, which fails under eventlet
folder = Path(os.environ["CELERY_FOLDER"])
for name in ("queue", "results"):
    (folder / name).mkdir(exist_ok=True)

app = Celery("tests", broker="filesystem://", backend=f"file://{folder / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "queue"),
    "data_folder_out": str(folder / "queue"),
    "control_folder": str(folder / "queue"),
    "polling_interval": 0.05,  # seconds; the default is 1
}
app.conf.worker_prefetch_multiplier = 1


@app.task
def ask(prompt: str) -> list[object]:
    """Call the model in both ways; return the texts, and what the database answers after the calls."""
    from django.db import connection  # noqa: PLC0415  Celery sets Django up after it imports this module

    from llm_pool import pool  # noqa: PLC0415

    streamed = "".join(chunk.text for chunk in pool.stream(prompt))
    text = pool.complete(prompt).text
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return [streamed, text, *cursor.fetchone()]
