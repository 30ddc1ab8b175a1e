"""What importing the models costs, and whom they know."""

import subprocess
import sys

CODE = """
import sys
import virtd.conf.domain
heavy = {"asyncio", "pyroute2", "dataclasses_json", "importlib.metadata", "rich", "click", "socketserver"}
print(sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith("virtd.") and
      not m.startswith(("virtd.conf", "virtd.constants", "virtd.errors"))))
"""


def test_imports_nothing_heavy_and_nobody_above() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"
