"""``python -m tests.soak --seconds 600 --seed 7``: the exit status is 1 if there was a violation."""

from __future__ import annotations

import argparse
import os
import random
import sys

import django


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.soak.soak import Soak  # noqa: PLC0415 - it needs the settings

    print(f"seed {options.seed} (SEED={options.seed} makes the same random choices again)", flush=True)
    soak = Soak(options.seconds, options.seed)
    soak.run()
    print(soak.table())
    return 1 if soak.record.violations else 0


if __name__ == "__main__":
    sys.exit(main())
