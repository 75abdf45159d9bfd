"""The deployed project with the status page, and a cache that its workers share."""

from __future__ import annotations

import os

from tests.deployments.project.settings import *  # noqa: F403 - the same, except for those below

DEBUG = True  # the project has no users
ROOT_URLCONF = "tests.deployments.project.page_urls"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": os.environ["CACHE_DIRECTORY"],
    }
}
