"""Runs uWSGI, from the wheel of pyuwsgi: ``python -m tests.deployments.uwsgi --http 127.0.0.1:8000 ...``."""

from __future__ import annotations

import sys

import pyuwsgi

pyuwsgi.run(sys.argv[1:])
