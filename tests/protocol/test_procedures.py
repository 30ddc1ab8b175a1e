"""The published table of procedures is the one that the code makes."""

import subprocess
import sys
from pathlib import Path

from virtd.protocol.procedure import EVENT
from virtd.protocol.programs import METHODS

CALLS = sum(procedure.kind != EVENT for procedure in METHODS.values())
CONTRIB = Path(__file__).parents[2] / "contrib"


def test_table_is_up_to_date() -> None:
    made = subprocess.run([sys.executable, CONTRIB / "procedures"], capture_output=True, text=True, check=True).stdout
    assert (CONTRIB / "procedures.md").read_text() == made, "run: contrib/procedures > contrib/procedures.md"


def test_table_has_every_call() -> None:
    lines = (CONTRIB / "procedures.md").read_text().splitlines()
    assert sum(line.count(" | ") == 4 and line[2].isdigit() for line in lines) == CALLS
