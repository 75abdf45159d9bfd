"""A path for each implementation of the view, and one for the meter."""

from __future__ import annotations

from django.urls import path

from benchmarks.project import streams, views

urlpatterns = [
    path("pooled/v1/chat/completions", views.pooled),
    path("shared/v1/chat/completions", views.shared),
    path("per-request/v1/chat/completions", views.per_request),
    path("meter", views.meter),
    path("stream-pooled/v1/chat/completions", streams.pooled),
    path("stream-shared/v1/chat/completions", streams.shared),
    path("stream-aiohttp/v1/chat/completions", streams.aiohttp),
]
