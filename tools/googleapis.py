"""Copies google/api/annotations.proto, and what it imports, out of googleapis-common-protos.

usage: python tools/googleapis.py FOLDER
"""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

FILES = ("annotations.proto", "http.proto")


def main() -> int:
    target = Path(sys.argv[1], "google", "api")
    target.mkdir(parents=True, exist_ok=True)
    source = files("google.api")
    for name in FILES:
        shutil.copyfile(str(source / name), target / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
