"""The tests' views, and the status page."""

from __future__ import annotations

from django.urls import include, path

from tests.urls import urlpatterns as views

urlpatterns = [*views, path("llm-pool/", include("llm_pool.urls"))]
