"""The demo's URLs."""

from __future__ import annotations

from django.urls import include, path

from demo_project import views

urlpatterns = [
    path("", views.chat, name="chat"),
    path("answer/", views.answer, name="answer"),
    path("agent/", views.agent, name="agent"),
    path("agent/run/", views.agent_run, name="agent-run"),
    path("stats/", views.stats, name="stats"),
    path("metrics", views.metrics, name="metrics"),
    path("counts/", views.counts, name="counts"),
    path("llm-pool/", include("llm_pool.urls")),  # the status page; with DEBUG, this machine may open it
]
