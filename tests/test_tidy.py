"""The house rules that a program can check, and the proof that each check catches an offence.

A rule is a function from a `Tree` to its offences, one line each. Its docstring says why the rule is there,
and its decorator holds files that offend, so that the rule itself is tested. Style is settled here and not in
review: to change a rule, change this file. Not here: what ruff, mypy, rustfmt and clippy already say.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
SELF = "tests/test_tidy.py"  # holds the words that it forbids


class Tree:
    """A checkout: the files that git has or would take, by their path from its root."""

    def __init__(self, root: Path) -> None:
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        if (root / ".git").exists():
            command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
            names = subprocess.run(
                command, cwd=root, check=True, capture_output=True, text=True
            ).stdout.split("\0")
        self.root = root
        self.files = sorted(name for name in set(names) if (root / name).is_file())

    def match(self, *patterns: str) -> list[str]:
        """The files that match a pattern such as `rust/core/src/**.rs`, where ** is any number of folders."""
        glob = "|".join(re.escape(p).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") for p in patterns)
        return [name for name in self.files if re.fullmatch(glob, name)]

    def text(self, name: str) -> str:
        """The file as text; bytes that are none are left to the rule about binary files."""
        return (self.root / name).read_text(encoding="utf-8", errors="replace")

    def written(self) -> Iterator[tuple[str, int, str]]:
        """Each line that somebody here wrote, with its file and number: not lock files, licences, seeds."""
        for name in self.match("**.py", "**.pyi", "**.rs", "**.md", "**.toml", ".ci/*", "Makefile"):
            for number, line in enumerate(self.text(name).splitlines(), 1):
                yield name, number, line

    def nodes(self, pattern: str) -> Iterator[tuple[str, ast.AST]]:
        """Each statement and expression in the Python files that match."""
        for name in self.match(pattern):
            for node in ast.walk(ast.parse(self.text(name))):
                yield name, node

    def shipped(self, *patterns: str) -> Iterator[tuple[str, int, str]]:
        """Each line of Rust that is neither a comment nor compiled for tests only."""
        for name in self.match(*patterns):
            if not re.search(r"/(tests|benches)/|/tests\.rs$", name):
                for number, line in without_tests(self.text(name)):
                    yield name, number, re.sub(r"(^|\s)//.*", "", line)


def without_tests(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines outside of `#[cfg(test)]` items. rustfmt puts an item's end where it began."""
    indent: str | None = None  # of the item that is skipped
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if indent is None:
            if line.strip() == "#[cfg(test)]":
                indent, inside = line[: line.index("#")], False
            else:
                yield number, line
        elif not inside and line.endswith("{"):
            inside = True
        elif line in {f"{indent}}}", f"{indent}}};"} or (not inside and line.endswith((";", "}"))):
            indent = None


Rule = Callable[[Tree], Iterator[str]]
RULES: dict[str, Rule] = {}
OFFENDERS: list[tuple[str, dict[str, str]]] = []


def rule(offender: dict[str, str], *more: dict[str, str]) -> Callable[[Rule], Rule]:
    """Adds a rule to those that are tested, with the files that it must find."""

    def add(check: Rule) -> Rule:
        RULES[check.__name__] = check
        OFFENDERS.extend((check.__name__, files) for files in (offender, *more))
        return check

    return add


@rule(
    {"rust/core/src/key_utils.rs": "//! A.\n"},
    {"tests/common/mod.rs": "//! A.\n"},
)
def a_file_is_named_by_its_noun(tree: Tree) -> Iterator[str]:
    """A name such as "util" says that nobody knew what the file is about, so anything may go in."""
    banned = {"util", "helper", "manager", "handler", "common", "base", "misc"}
    for name in tree.files:
        words = {word.removesuffix("s") for word in re.split(r"[^a-z]+", name.lower())}
        yield from (f"{name}: {word} is no noun of this domain" for word in sorted(words & banned))


@rule(
    {"rust/core/src/key.rs": "// A.\n"},
    {"python/turbopump/keys.py": "# A.\n"},
)
def a_file_says_what_it_is(tree: Tree) -> Iterator[str]:
    """A reader learns from the first line whether this is the file to read."""
    for name in tree.match("**.rs"):
        if not tree.text(name).startswith("//! "):
            yield f"{name}: must open with //!"
    for name in tree.match("**.py"):
        if not ast.get_docstring(ast.parse(tree.text(name))):
            yield f"{name}: must open with a docstring"


@rule(
    {"rust/core/src/key.rs": "//! A.\n" * 601},
)
def a_file_is_one_concept(tree: Tree) -> Iterator[str]:
    """More than 600 lines were two concepts. A stub documents a whole module, which is many."""
    for name in tree.match("**.rs", "**.py", ".ci/*"):
        if (length := tree.text(name).count("\n")) > 600:
            yield f"{name}: {length} lines, 600 at most"


@rule(
    {"python/turbopump/keys.py": "async def long():\n" + "    a()\n" * 70},
    {"rust/core/src/key.rs": "    pub(crate) async fn long(\n    ) {\n" + "        a();\n" * 70 + "    }\n"},
)
def a_function_fits_on_a_screen(tree: Tree) -> Iterator[str]:
    """More than 70 lines cannot be seen at once, so nobody sees what they do together."""
    for name, node in tree.nodes("**.py"):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > 70:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, 70 at most"
    start = re.compile(r'( *)(?:pub(?:\(.*?\))? )?(?:(?:const|async|unsafe|extern(?: "C")?) )*fn (\w+)')
    for name in tree.match("**.rs"):
        lines = tree.text(name).splitlines()
        for at, line in enumerate(lines):
            if (found := start.match(line)) and not line.endswith(("}", ";")):
                end = re.compile(rf"{found[1]}(\}}|\).*;$)")
                length = next((n for n, text in enumerate(lines[at:], 1) if end.match(text)), 0)
                if length > 70:
                    yield f"{name}:{at + 1}: {found[2]} has {length} lines, 70 at most"


@rule(
    {"rust/core/src/key.rs": "#[cfg(test)]\nuse a;\nlet a = Instant::now();\n"},
    {"rust/udt/src/rtt.rs": "use std::net::UdpSocket;\n"},
)
def time_and_chance_are_arguments(tree: Tree) -> Iterator[str]:
    """A state machine that reads a clock, rolls dice or does I/O cannot be replayed from a seed."""
    reads = re.compile(r"Instant::now|SystemTime::now|thread_rng|std::(net|fs|thread|process|env)\b")
    for name, number, line in tree.shipped("rust/core/**.rs", "rust/udt/**.rs"):
        if found := reads.search(line):
            yield f"{name}:{number}: {found[0]} belongs to the engine; take the value as an argument"


@rule(
    {"rust/core/Cargo.toml": "[dependencies]\nmio.workspace = true\n"},
    {"rust/core/Cargo.toml": "[target.unix.dependencies]\na = { package = 'libc' }\n"},
    {"rust/engine/Cargo.toml": "[build-dependencies]\npyo3 = '1'\n"},
    {"rust/load/Cargo.toml": "[dependencies]\nturbopump-native = '1'\n"},
    {"rust/native/Cargo.toml": "[dependencies]\nturbopump-lab = '1'\n"},
)
def crates_depend_downwards(tree: Tree) -> Iterator[str]:
    """The manifests draw the line between deciding, doing I/O and speaking to Python."""
    io = {"pyo3", "mio", "rustix", "libc", "nix", "tokio", "socket2", "quinn-udp", "polling"}
    ours = {f"turbopump-{crate}" for crate in ("core", "udt", "sim", "engine", "lab", "load", "native")}
    forbidden = {"core": io | ours, "udt": io | ours}
    forbidden |= {crate: {"pyo3"} for crate in ("engine", "load", "lab")}
    tops = {"turbopump-native", "turbopump-lab"}  # nothing depends on these
    for name in tree.match("rust/*/Cargo.toml"):
        manifest = tomllib.loads(tree.text(name))
        tables = [manifest, *manifest.get("target", {}).values()]
        names: set[str] = set()
        for table in tables:
            for kind in ("dependencies", "build-dependencies"):
                specs = table.get(kind, {}).items()
                names |= {spec.get("package", key) if isinstance(spec, dict) else key for key, spec in specs}
        crate = name.split("/")[1]
        for dependency in sorted(names & (forbidden.get(crate, set()) | tops)):
            yield f"{name}: {crate} must not depend on {dependency}"


# Those that put the parts together, and the files that were one part before they outgrew it.
ROOTS = {"__init__", "__main__", "cli", "directory", "node", "serve", "testing"}
SPLIT = {"config": {"problem"}}


@rule(
    {"python/turbopump/server.py": "from turbopump.node import Node\n"},
    {"python/turbopump/server.py": "from turbopump import log\n"},
    {"python/turbopump/server.py": "import turbopump\n"},
)
def only_roots_know_the_parts(tree: Tree) -> Iterator[str]:
    """Parts that know only config and errors can be read, tested and replaced one at a time."""
    for name, node in tree.nodes("python/turbopump/**.py"):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "turbopump":
            modules = [f"turbopump.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        part = name.split("/")[2].removesuffix(".py")
        allowed = {part, "_native", "config", "errors"} | SPLIT.get(part, set())
        for words in (module.split(".") for module in modules):
            known = words[1] if len(words) > 1 else "__init__"
            if words[0] == "turbopump" and known not in allowed and part not in ROOTS:
                yield f"{name}:{node.lineno}: {part} must not know {known}"


@rule(
    {"python/turbopump/server.py": "asyncio.create_task(a())\n"},
)
def tasks_have_an_owner(tree: Tree) -> Iterator[str]:
    """A task outside of the one TaskGroup may die unseen."""
    for name, node in tree.nodes("python/**.py"):
        if isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            if word in {"create_task", "ensure_future"} and name != "python/turbopump/node.py":
                yield f"{name}:{node.lineno}: {word} outside of node.py"


@rule(
    {"python/turbopump/server.py": "try:\n    a()\nexcept Exception:\n    pass\n"},
    {"tests/test_server.py": "try:\n    a()\nexcept:\n    b()\n"},
    {"tests/test_server.py": "with suppress(Exception):\n    a()\n"},
)
def failures_are_seen(tree: Tree) -> Iterator[str]:
    """Whoever swallows every exception hides the one that nobody thought of."""
    everything = {"Exception", "BaseException"}
    for name, node in tree.nodes("**.py"):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            silent = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
            if not caught or (caught in everything and silent):
                yield f"{name}:{node.lineno}: except {caught} must name what it expects, or say what happened"
        elif isinstance(node, ast.Call):
            hidden = everything & {ast.unparse(argument) for argument in node.args}
            if hidden and ast.unparse(node.func).endswith("suppress"):
                yield f"{name}:{node.lineno}: suppress must name what it expects"


@rule(
    {"tests/test_server.py": "await asyncio.sleep(1)\n"},
    {"rust/core/tests/split.rs": "thread::sleep(a);\n"},
)
def nothing_sleeps(tree: Tree) -> Iterator[str]:
    """A sleep is too long or too short: wait for the event, with a deadline. Only load keeps a pace."""
    paced = set(tree.match("rust/load/src/**"))
    for name in tree.match("tests/**.py", "rust/**.rs"):
        for number, line in enumerate(tree.text(name).splitlines(), 1):
            if re.search(r"(?<!fn )(?<!self\.)\bsleep\(", line) and name != SELF and name not in paced:
                yield f"{name}:{number}: sleeps"


@rule(
    {"README.md": "TODO: all\n"},
    {".ci/run": "# FIXME\n"},
)
def nothing_is_left_for_later(tree: Tree) -> Iterator[str]:
    """What is to be done is an issue, or is done now."""
    for name, number, line in tree.written():
        if (found := re.search(r"\b(TODO|FIXME|XXX)\b", line)) and name != SELF:
            yield f"{name}:{number}: {found[0]}"


@rule(
    {"rust/core/src/key.rs": "let a = b.unwrap();\n"},
    {"rust/engine/src/key.rs": "// Invariant: not here.\nlet a = 1;\nb.expect(c);\n"},
)
def a_panic_has_a_proof(tree: Tree) -> Iterator[str]:
    """An unwrap in the data path takes every client down, unless the comment above it is right."""
    for name, number, line in tree.shipped("rust/core/**.rs", "rust/engine/**.rs", "rust/udt/src/**.rs"):
        if re.search(r"\.unwrap\(\)|\.expect\(", line):
            lines = tree.text(name).splitlines()
            top = number - 1
            # Up to the start of the statement, then of the comment; an attribute may stand between the two.
            while top > 0 and (re.match(r"\s*\.", lines[top]) or re.match(r"\s*(//|#\[)", lines[top - 1])):
                top -= 1
            if not any("// Invariant:" in text for text in lines[top:number]):
                yield f"{name}:{number}: unwrap or expect without `// Invariant:`"


@rule(
    {"rust/native/src/lib.rs": "create_exception!(a, B, C);\n"},
)
def errors_cross_in_one_file(tree: Tree) -> Iterator[str]:
    """One file draws the tree of exceptions, so that it can be drawn."""
    for name, number, line in tree.shipped("rust/**.rs"):
        if "create_exception!" in line and name != "rust/native/src/error.rs":
            yield f"{name}:{number}: exceptions are made in rust/native/src/error.rs"


@rule(
    {"rust/engine/src/key.rs": "let a = unbounded();\n"},
    {"python/turbopump/server.py": "a = asyncio.Queue()\n"},
)
def every_queue_has_a_limit(tree: Tree) -> Iterator[str]:
    """A queue without a limit turns a slow reader into an empty memory."""
    for name, number, line in tree.shipped("rust/**.rs"):
        if found := re.search(r"\bunbounded|mpsc::channel\b", line):
            yield f"{name}:{number}: {found[0]} has no limit"
    for name, node in tree.nodes("python/**.py"):
        if isinstance(node, ast.Call) and ast.unparse(node).endswith("Queue()"):
            yield f"{name}:{node.lineno}: a queue without a limit"


@rule(
    {"README.md": "# " + "a " * 60 + "\n"},
)
def lines_are_short(tree: Tree) -> Iterator[str]:
    """Two files fit side by side. Tables and addresses cannot be broken."""
    for name, number, line in tree.written():
        free = name.endswith(".md") and re.match(r"\s*(>\s*)?\||\s*\S*https?://\S+$", line)
        if len(line) > 110 and not free:
            yield f"{name}:{number}: {len(line)} columns, 110 at most"


@rule(
    {"Makefile": "a: b \n"},
)
def lines_end_where_they_end(tree: Tree) -> Iterator[str]:
    """Blanks that nobody sees make changes that nobody meant."""
    for name, number, line in tree.written():
        if line != line.rstrip():
            yield f"{name}:{number}: ends in blanks"


@rule(
    {"data.bin": "\0"},
    {"picture.png": "\0" * 200_001},
)
def git_holds_sources(tree: Tree) -> Iterator[str]:
    """What can be built is built. A picture may be small, and so may an input for the fuzzer."""
    limits = {".png": 200_000, ".jpg": 200_000, ".gif": 200_000, ".webp": 200_000}
    for name in tree.files:
        data = (tree.root / name).read_bytes()
        limit = 64_000 if name.startswith("rust/fuzz/seeds/") else limits.get(PurePosixPath(name).suffix, 0)
        try:
            binary = "\0" in data.decode()
        except UnicodeDecodeError:
            binary = True
        if (binary or limit) and len(data) > limit:
            yield f"{name}: binary, {len(data)} bytes, {limit} at most"


@rule(
    {"uv.lock": ""},
    {"requirements.lock": "--index-url https://example.org\n"},
)
def locks_name_no_host(tree: Tree) -> Iterator[str]:
    """Where packages come from is the business of the machine that installs them."""
    yield from (f"{name}: names hosts; requirements.lock is the lock" for name in tree.match("**uv.lock"))
    for name in tree.match("**requirements.lock"):
        for number, line in enumerate(tree.text(name).splitlines(), 1):
            if re.search(r"https?:|--(extra-)?index-url|--find-links", line):
                yield f"{name}:{number}: names a host"


@rule(
    {"python/turbopump/client/pool.py": "class A: ...\n"},
)
def a_module_has_its_tests(tree: Tree) -> Iterator[str]:
    """Whoever changes X finds its tests in test_X, without a search."""
    for name in tree.match("python/turbopump/**.py"):
        parts = name.removesuffix(".py").split("/")[2:]
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        logic = any(isinstance(node, kinds) for _, node in tree.nodes(name))
        wanted = {f"tests/test_{parts[0]}.py", f"tests/test_{'_'.join(parts)}.py"}
        if logic and parts[-1] not in {"__init__", "__main__", "errors"} and not wanted & set(tree.files):
            yield f"{name}: no {min(wanted, key=len)}"


@rule(
    {"README.md": "# A\n\n# B\n"},
)
def a_page_has_one_title(tree: Tree) -> Iterator[str]:
    """Two titles are two pages."""
    for name in tree.match("**.md"):
        prose = re.sub(r"^ *```.*?^ *```", "", tree.text(name), flags=re.DOTALL | re.MULTILINE)
        if (titles := len(re.findall(r"^# ", prose, flags=re.MULTILINE))) != 1:
            yield f"{name}: {titles} titles"


@pytest.mark.parametrize("name", RULES)
def test_the_house_rule_holds(name: str) -> None:
    """Nothing in this checkout offends."""
    offences = list(RULES[name](Tree(ROOT)))

    assert offences == [], RULES[name].__doc__


def plant(root: Path, files: dict[str, str]) -> Tree:
    """A checkout of these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return Tree(root)


@pytest.mark.parametrize(("name", "files"), OFFENDERS)
def test_every_rule_catches_an_offence(tmp_path: Path, name: str, files: dict[str, str]) -> None:
    """A check that cannot fail checks nothing."""
    offences = list(RULES[name](plant(tmp_path, files)))

    assert [offence.split(":")[0] for offence in offences] == list(files)


RUST_WITHOUT_OFFENCE = """//! A clock is named, in a comment, as Instant::now.

fn first(a: Option<u32>) -> Option<u32> {
    // Invariant: the caller looked,
    // and said so.
    #[expect(clippy::unwrap_used)]
    let b = a
        .map(twice)
        .unwrap();
    Some(b.unwrap_or(1)) // never unbounded
}

#[cfg(test)]
use std::net::UdpSocket;

#[cfg(test)]
mod tests {
    #[test]
    fn now() {
        a(Instant::now()).unwrap();
    }
}
"""


ALLOWED = {
    "rust/core/src/key.rs": RUST_WITHOUT_OFFENCE,
    "rust/core/tests/law.rs": "//! A.\n\nfn a() {\n    a(Instant::now()).unwrap();\n}\n",
    "rust/native/Cargo.toml": "[dependencies]\npyo3 = '1'\nturbopump-engine = '1'\n",
    "rust/fuzz/seeds/resp/nul": "\0 \n",
    "python/turbopump/config.py": '"""A."""\n\nfrom turbopump.problem import a\n',
    "python/turbopump/node.py": '"""A."""\n\nfrom turbopump import config, problem\n',
    "README.md": "# A\n\n```\n# a comment\n```\n\n| " + "a " * 60 + "|\n",
}


@pytest.mark.parametrize("name", RULES)
def test_no_rule_cries_wolf(tmp_path: Path, name: str) -> None:
    """What the rules allow on purpose passes."""
    assert list(RULES[name](plant(tmp_path, ALLOWED))) == []
