"""The URLs of a project with the page."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("llm-pool/", include("llm_pool.urls"))]
