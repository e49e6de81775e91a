"""The import rules of docs/internals/architecture.md, and the smells that creep in unseen."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "netclawd"

#: What a pure module may use of the standard library: values, types and arithmetic.
VALUE_MODULES = frozenset(
    [
        "__future__",
        "abc",
        "base64",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "datetime",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "graphlib",
        "hashlib",
        "heapq",
        "hmac",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "shlex",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "zlib",
        "zoneinfo",
    ]
)
#: Parts of the standard library that architecture.md gives a place, as it does third-party ones.
PLACED_STANDARD = frozenset({"sqlite3", "tomllib"})
#: Packages of several libraries, of which each has a place: `import systemd.journal`.
OF_SEVERAL = frozenset({"systemd"})
#: Lines of code.
LONGEST_MODULE = 420
SMELLING_NAMES = frozenset({"utils", "util", "helpers", "helper", "manager", "common", "misc"})
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval"})

#: Value classes compile their ``__init__`` from field names, as dataclasses do.
EXEMPT_CALLS = frozenset({("core.values", "exec")})


@dataclass(frozen=True)
class Module:
    #: Dotted, without "netclawd.": "core.drain"; "" for the package itself.
    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]

    @property
    def place(self) -> str:
        """What one library may belong to: a file, or the folder directly under its layer."""
        parts = self.path.relative_to(PACKAGE).parts
        return f"{parts[0]}/{parts[1]}/" if len(parts) > 2 else "/".join(parts)

    def imports(self) -> Iterator[str]:
        """Yield each imported module, dotted and absolute, wherever the import stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.path}: relative import"
                assert node.module
                yield node.module
                # `from netclawd.core import drain` names netclawd.core.drain.
                if node.module.split(".")[0] == "netclawd":
                    yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def own(self) -> Iterator[str]:
        """Yield imports of netclawd, without "netclawd."."""
        for name in self.imports():
            if name.startswith("netclawd."):
                yield name.removeprefix("netclawd.")

    def foreign(self) -> Iterator[str]:
        return (name for name in self.imports() if name.split(".")[0] != "netclawd")


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text())))
    return tuple(found)


def of_layer(layer: str) -> list[Module]:
    return [module for module in modules() if module.layer == layer]


def breaches(layer: str, allowed: tuple[str, ...]) -> list[str]:
    """Name the imports from our own package that lead out of ``allowed``."""
    return [
        f"{module.name} imports {name}"
        for module in of_layer(layer)
        for name in module.own()
        if name.split(".")[0] not in (*allowed, "__version__")
    ]


def test_core_imports_itself_errors_and_value_modules_only() -> None:
    assert breaches("core", ("core", "errors")) == []
    foreign = [
        f"{module.name} imports {name}"
        for module in of_layer("core") + of_layer("errors")
        for name in module.foreign()
        if name not in VALUE_MODULES and name.split(".")[0] not in VALUE_MODULES
    ]
    assert foreign == []


def test_core_calls_nothing_that_touches_the_world() -> None:
    calls = [
        f"{module.name}:{node.lineno} calls {node.func.id}"
        for module in of_layer("core")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in IMPURE_CALLS
        and (module.name, node.func.id) not in EXEMPT_CALLS
    ]
    assert calls == []


def test_errors_import_nothing_of_ours() -> None:
    assert breaches("errors", ()) == []


def test_ports_import_core_only() -> None:
    assert breaches("ports", ("ports", "core", "errors")) == []


def test_the_daemon_imports_core_and_ports_only() -> None:
    assert breaches("daemon", ("daemon", "core", "ports", "errors")) == []


def test_an_adapter_imports_core_ports_and_itself_only() -> None:
    assert breaches("adapters", ("adapters", "core", "ports", "errors")) == []
    others = [
        f"{module.name} imports {name}"
        for module in of_layer("adapters")
        for name in module.own()
        if name.startswith("adapters.") and name.split(".")[1] not in module.name.split(".")[1:2]
    ]
    assert others == []


def test_only_the_wiring_names_both_the_daemon_and_the_adapters() -> None:
    both = [
        module.name
        for module in modules()
        if {"daemon", "adapters"} <= {name.split(".")[0] for name in module.own()}
    ]
    assert [name for name in both if name != "cli.wiring"] == []


def test_nothing_but_the_stub_imports_the_command_line() -> None:
    inward = [
        f"{module.name} imports {name}"
        for module in modules()
        if module.layer not in ("cli", "__main__")
        for name in module.own()
        if name.split(".")[0] == "cli"
    ]
    assert inward == []


def libraries() -> dict[str, set[str]]:
    """Return for each library that needs a place the places that import it."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in module.foreign():
            top = name.split(".")[0]
            if top in PLACED_STANDARD or top not in sys.stdlib_module_names:
                library = ".".join(name.split(".")[:2]) if top in OF_SEVERAL else top
                found[library].add(module.place)
    return found


def documented_places() -> dict[str, str]:
    """Read the table of libraries in architecture.md."""
    text = (ROOT / "docs/internals/architecture.md").read_text()
    places = {}
    for row in re.finditer(r"^\| ([\w., ]+) \| `((?:adapters|cli)/[\w/.]*)`", text, re.MULTILINE):
        for library in row[1].split(","):
            places[library.strip()] = row[2]
    assert "falcon" in places
    return places


def test_each_library_is_imported_where_the_architecture_page_says() -> None:
    documented = documented_places()
    wrong = []
    for library, places in libraries().items():
        if library not in documented:
            wrong.append(f"{library} has no place in architecture.md: {sorted(places)}")
            continue
        home = documented[library]
        outside = {
            p for p in places if p != home and not (home.endswith("/") and p.startswith(home))
        }
        if outside:
            wrong.append(f"{library} belongs to {home}, not to {sorted(outside)}")
    assert wrong == []


def test_the_stub_imports_nothing_but_the_standard_library_at_its_top() -> None:
    for module in modules():
        if module.name == "__main__":
            top = [
                node for node in module.tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            names = {
                name.split(".")[0]
                for node in top
                for name in (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                )
            }
            assert names <= sys.stdlib_module_names


def test_only_the_clock_reads_the_wall_clock() -> None:
    readers = [
        f"{module.name}:{node.lineno}"
        for module in modules()
        if module.name != "adapters.clock"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "datetime.now")
    ]
    assert readers == []


@pytest.mark.parametrize("folder", ["netclawd", "tests", "benchmarks"])
def test_no_file_has_a_name_that_says_nothing(folder: str) -> None:
    assert [p for p in (ROOT / folder).rglob("*.py") if p.stem in SMELLING_NAMES] == []


def count_code_lines(path: Path) -> int:
    """Count lines without blank ones, comments and the module's docstring: an essay costs nothing."""
    text = path.read_text()
    first = ast.parse(text).body[:1]
    essay = 0
    if first and isinstance(first[0], ast.Expr) and isinstance(first[0].value, ast.Constant):
        essay = first[0].end_lineno or 0
    lines = (line.strip() for line in text.splitlines()[essay:])
    return sum(1 for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("folder", ["netclawd", "tests", "benchmarks"])
def test_no_module_is_too_long_to_read(folder: str) -> None:
    lengths = {str(p.relative_to(ROOT)): count_code_lines(p) for p in (ROOT / folder).rglob("*.py")}
    assert {p: n for p, n in lengths.items() if n > LONGEST_MODULE} == {}
