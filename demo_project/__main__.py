"""The command ``python -m demo_project``."""

from __future__ import annotations

import sys

from demo_project.upstream.launcher import main

sys.exit(main())
