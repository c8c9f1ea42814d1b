"""What a benchmark ran on: without it a figure says nothing."""

import os
import platform
import re
import subprocess
from pathlib import Path

from turbopump import build_info


def machine() -> dict[str, str]:
    """The hardware and the software, each under its name."""
    build = build_info()
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} CPUs",
        "memory": f"{_memory_bytes() / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "turbopump": f"{build['version']} ({build['profile']}, {build['git'] or 'no commit'})",
    }


def servers(*names: str) -> dict[str, str]:
    """The versions of those that nodes are measured beside, of redis-server, memcached and etcd."""
    patterns = {"redis-server": r"v=(\S+)", "memcached": r"(\d\S+)", "etcd": r"Version: (\S+)"}
    return {name: _version([name, "--version"], patterns[name]) for name in names}


def package_version(package: str) -> str:
    """The version of one of Debian's packages, such as a library that has no program to ask."""
    return _version(["dpkg-query", "--show", "--showformat", "${Version}", package], r"(\S+)")


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(models, platform.machine())


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version(command: list[str], pattern: str) -> str:
    """What a program says that it is."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - as above
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "not installed"
    found = re.search(pattern, answer.stdout)
    return found[1] if found else answer.stdout.strip()
