from __future__ import annotations

import sys

from demo_project.launcher import main

sys.exit(main())
