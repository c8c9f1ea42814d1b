"""What stands in examples/ runs as it stands there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Served

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_the_example_runs(node: Served, file: Path) -> None:
    """Beside a node, as a reader would try it."""
    environment = os.environ | {"TURBOPUMP_SOCKET": node.socket}
    done = subprocess.run(
        [sys.executable, str(file), "--once"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "hello" in done.stdout
