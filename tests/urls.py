"""The URLs of the tests' views."""

from __future__ import annotations

from django.urls import path

from tests import views

urlpatterns = [
    path("complete", views.complete),
    path("complete-and-query", views.complete_and_query),
    path("acomplete", views.acomplete),
    path("complete-on-the-loop", views.complete_on_the_loop),
    path("stream", views.stream),
    path("astream", views.astream),
    path("stream-on-done", views.stream_on_done),
    path("astream-on-done", views.astream_on_done),
    path("html-stream", views.html_stream),
    path("ui-messages", views.ui_messages),
    path("stats", views.stats),
    path("metrics", views.metrics),
]
