"""README.md's examples, run verbatim.

A fenced block tagged `sh` or `python` is an example if the comment `<!-- test -->` stands before it. A `text`
block that follows directly is what it prints; where a version stands, any version will do. The examples
talk to a node at /tmp/turbopump, as a reader's would; they are run in the order of the page, on one node.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import Served
from wire import until

ROOT = Path(__file__).resolve().parent.parent
PATH = "/tmp/turbopump"
VERSION = re.compile(r"\b[0-9a-f]{16}-[0-9a-f]{16}\b")
BLOCK = re.compile(
    r"^<!-- test -->\n+```(?P<language>\w+)\n(?P<code>.*?)^```\n(?:\n*```text\n(?P<output>.*?)^```)?",
    re.DOTALL | re.MULTILINE,
)


class Example(NamedTuple):
    """A block to run.

    Attributes:
        line: Where it begins in the page.
        language: `sh` or `python`.
        code: What is run.
        output: What it prints, None where the page does not say.
    """

    line: int
    language: str
    code: str
    output: str | None


def examples(page: str) -> list[Example]:
    """The examples of a page, from its top to its end."""
    return [
        Example(
            page.count("\n", 0, found.start("code")) + 1, found["language"], found["code"], found["output"]
        )
        for found in BLOCK.finditer(page)
    ]


def readme() -> str:
    """The page."""
    return (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""


def serves() -> bool:
    """Whether somebody listens at the examples' path."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(PATH) == 0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to run examples in, with a node at the path that they name."""
    assert not serves(), f"somebody serves at {PATH}, where the examples write: stop that node first"
    folder = tmp_path_factory.mktemp("readme")
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("wb"))
        command = [sys.executable, "-m", "turbopump", "serve"]
        node = stack.enter_context(subprocess.Popen(command, env=environment(), stderr=log, cwd=folder))
        stack.callback(node.kill)
        until(lambda: serves() or node.poll() is not None, "the node to serve")
        assert node.poll() is None, (folder / "log").read_text(encoding="utf-8")
        yield folder
        node.terminate()
        assert node.wait(30) == 0


def environment() -> dict[str, str]:
    """What a reader's shell has who has installed the package: its programs and its modules."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PATH": path, "PYTHONPATH": modules}


def ran(example: Example, folder: Path) -> str:
    """What an example prints; it must end well."""
    arguments = {"sh": ["sh", "-e", "-c"], "python": [sys.executable, "-W", "error", "-c"]}[example.language]
    done = subprocess.run(
        [*arguments, example.code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=folder,
        env=environment(),
    )
    assert done.returncode == 0, f"README.md:{example.line}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("example", examples(readme()), ids=lambda example: f"line {example.line}")
def test_an_example_does_what_the_page_says(reader: Path, example: Example) -> None:
    """Verbatim."""
    printed = ran(example, reader)

    if example.output is not None:
        assert VERSION.sub("VERSION", printed.strip()) == VERSION.sub("VERSION", example.output.strip())


@pytest.mark.parametrize(
    "word", ["| nc -U /tmp/turbopump", "redis-cli -s /tmp/turbopump", "import redis", "Client("]
)
def test_each_way_to_use_a_node_has_an_example(word: str) -> None:
    """nc, redis-cli, redis-py and Python."""
    assert any(word in example.code for example in examples(readme()))


def test_the_seeds_lines_are_among_them() -> None:
    """As they were written in 2014."""
    code = "".join(example.code for example in examples(readme()) if example.language == "sh")

    assert "echo 'write|name=foo|haha I am a great value' | nc -U /tmp/turbopump\n" in code
    assert re.search(r"^echo 'read\|name=foo\|' +\| nc -U /tmp/turbopump\b", code, re.MULTILINE)
    assert re.search(r"^echo 'local_list\|\|' +\| nc -U /tmp/turbopump\b", code, re.MULTILINE)


def test_every_block_that_could_be_run_is() -> None:
    """Whoever adds a block of Python says that it is an example, or calls it text."""
    page = readme()

    assert page.count("\n```python\n") == sum(example.language == "python" for example in examples(page))


def test_examples_are_found_where_they_are_marked(folder: Path, node: Served) -> None:
    """And nowhere else; a failure tells its line."""
    page = (
        "# A\n\n```sh\nnot marked\n```\n\n<!-- test -->\n```sh\necho a\necho b\n```\n\n```text\na\nb\n```\n"
        "\n<!-- test -->\n\n```python\nprint(1)\n```\n\nprose\n\n```text\nnot its output\n```\n"
        "<!-- test -->\n```sh\nfalse\n```\n"
    )
    first, second, third = examples(page)

    assert first == Example(9, "sh", "echo a\necho b\n", "a\nb\n")
    assert second == Example(21, "python", "print(1)\n", None)
    assert ran(first, folder) == first.output
    assert ran(second, folder) == "1\n"
    with pytest.raises(AssertionError, match=r"README\.md:31: exit code 1"):
        ran(third, folder)
    assert node.process.poll() is None
