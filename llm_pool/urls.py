"""The status page and the health checks: ``path("llm-pool/", include("llm_pool.urls"))``."""

from __future__ import annotations

from django.urls import path

from llm_pool.engine.stats.listeners import stats_listeners
from llm_pool.status import views
from llm_pool.status.recorder import recorder

app_name = "llm_pool"
urlpatterns = [
    path("", views.page, name="status"),
    path("data/", views.data, name="data"),
    path("events/", views.events, name="events"),
    path("health/live/", views.live, name="live"),
    path("health/ready/", views.ready, name="ready"),
]

stats_listeners.append(recorder.pool_changed)  # here: a project without the page needs no history
