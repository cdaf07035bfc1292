"""Writes trunkline/v1/__init__.py, which re-exports every name of the contract.

Run after the stubs have been generated. The names come from the descriptors, so that
`from trunkline import v1` always offers exactly what the contract holds.
"""

import importlib
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "clients" / "python" / "trunkline" / "v1"


def main() -> int:
    sys.path.insert(0, str(PACKAGE.parents[1]))
    (PACKAGE / "__init__.py").write_text('"""The contract."""\n', "utf-8")
    lines = [
        '"""Every message, enum and enum value of package trunkline.v1. Generated; do not edit."""',
        "",
    ]
    exported: list[str] = []
    for path in sorted(PACKAGE.glob("*_pb2.py")):
        descriptor = importlib.import_module(f"trunkline.v1.{path.stem}").DESCRIPTOR
        names = list(descriptor.message_types_by_name)
        for name, enum in descriptor.enum_types_by_name.items():
            names += [name, *(value.name for value in enum.values)]
        if names:
            exported += names
            lines.append(f"from trunkline.v1.{path.stem} import (")
            lines += [f"    {name}," for name in sorted(names)]
            lines.append(")")
    lines += ["", "__all__ = ["]
    lines += [f'    "{name}",' for name in sorted(exported)]
    lines += ["]", ""]
    (PACKAGE / "__init__.py").write_text("\n".join(lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
