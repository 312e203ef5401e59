"""The shape of the code, read off its syntax trees: who imports whom, what is pure, who reads and writes what."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from shared import topics
from shared.stream.service import ServiceSpec
from shared.topics import PRIVACY_EVENTS, TOPICS, UPSTREAM

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "shared", "deploy")
SERVICES = sorted(path.parent.name for path in (ROOT / "services").glob("*/__main__.py"))

RULE_MODULES = {
    "ingestion": ("domain", "matching", "state"),
    "classification": ("domain", "desk"),
    "credits": ("domain", "book"),
    "notification": ("domain", "quiet_hours"),
    "inbox": ("domain", "ledger", "rates"),
}
"""What decides: functions of state and event, which may use these modules and one another, and nothing else."""
PURE_LIBRARIES = {
    *("abc", "bisect", "collections", "dataclasses", "datetime", "enum", "functools", "hashlib", "heapq", "itertools"),
    *("math", "operator", "re", "typing", "unicodedata", "uuid", "zoneinfo"),
}
SHARED_RULES = ("rules",)
PURE_SHARED = {"shared.events", "shared.templates", "shared.text", *(f"shared.{module}" for module in SHARED_RULES)}

# Shapes what it is given; takes only types from modules that do I/O.
SHAPING_MODULES = ("inbox/receipt", "inbox/views", "inbox/in_flight")

CLOCKS_AND_CHANCE = {"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns", "uuid1", "uuid4", "urandom"}
EFFECTS = {"open", "print", "input", "exec", "eval", "__import__", "getenv"}

NOT_READ_YET = {PRIVACY_EVENTS}
"""Carried and kept; what its readers have to do, erasure, is not built."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def rule_paths() -> list[Path]:
    own = [ROOT / "services" / service / f"{each}.py" for service, modules in RULE_MODULES.items() for each in modules]
    return [*own, *(ROOT / "shared" / f"{module}.py" for module in SHARED_RULES)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """The modules a file imports, under a condition or within a function too; `from a import b` counts as `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


# Who imports whom


@pytest.mark.parametrize("service", SERVICES)
def test_services_never_import_each_other(service: str) -> None:
    foreign = {
        f"{name_of(path)}: {module}"
        for path in sources(f"services/{service}")
        for module in imported(path)
        if lies_in(module, "services") and not lies_in(module, f"services.{service}")
    }
    assert foreign == set()


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("shared", ("services", "deploy", "tests")), ("services", ("deploy", "tests")), ("deploy", ("tests",))],
)
def test_dependencies_point_one_way(package: str, forbidden: tuple[str, ...]) -> None:
    wrong = {
        f"{name_of(path)}: {module}"
        for path in sources(package)
        for module in imported(path)
        if any(lies_in(module, other) for other in forbidden)
    }
    assert wrong == set()


def test_only_tests_use_what_is_made_for_tests() -> None:
    users = {
        name_of(path)
        for path in [*sources("services"), *sources("shared")]
        if "shared/testing" not in name_of(path) and any(lies_in(module, "shared.testing") for module in imported(path))
    }
    assert users == set()


# What is pure


def test_every_service_with_rules_is_held_to_their_purity() -> None:
    with_rules = {path.parent.name for path in (ROOT / "services").glob("*/domain.py")}
    assert with_rules == set(RULE_MODULES)
    assert all(path.exists() for path in rule_paths())


@pytest.mark.parametrize("path", rule_paths(), ids=name_of)
def test_rules_import_nothing_that_could_do_anything(path: Path) -> None:
    service = path.parent.name
    siblings = {f"services.{service}.{module}" for module in RULE_MODULES.get(service, ())}
    allowed = PURE_LIBRARIES | PURE_SHARED | siblings
    impure = {module for module in imported(path) if not any(lies_in(module, each) for each in allowed)}
    assert impure == set()


def shaping_paths() -> list[Path]:
    return [ROOT / "services" / f"{module}.py" for module in SHAPING_MODULES]


@pytest.mark.parametrize("path", [*rule_paths(), *shaping_paths()], ids=name_of)
def test_rules_wait_for_nothing_and_read_no_clock_and_draw_no_lots(path: Path) -> None:
    assert sorted(slips(path)) == []


def slips(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: asynchronous"
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS_AND_CHANCE:
            yield f"{node.lineno}: {node.attr}"
        elif (
            isinstance(node, ast.Name)
            and node.id in CLOCKS_AND_CHANCE | EFFECTS
            and isinstance(node.ctx, ast.Load)
            and not _assigned(path, node.id)
        ):
            yield f"{node.lineno}: {node.id}"


def _assigned(path: Path, name: str) -> bool:
    """Whether the file gives the name a meaning of its own: a variable `today` is no clock."""
    return any(
        (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
        or (isinstance(node, ast.arg) and node.arg == name)
        for node in ast.walk(tree_of(path))
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_prints_past_the_log(package: str) -> None:
    printing = {
        f"{name_of(path)}:{node.lineno}"
        for path in sources(package)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == set()


# Who reads and writes which topic


def spec_of(service: str) -> ServiceSpec | None:
    """The service's wiring; None for one that is not built on the delivery kit."""
    return getattr(import_module(f"services.{service}.service"), "SPEC", None)


KIT_SERVICES = [service for service in SERVICES if spec_of(service) is not None]


@pytest.mark.parametrize("service", KIT_SERVICES)
def test_a_service_reads_what_the_registry_says(service: str) -> None:
    spec = spec_of(service)
    assert spec is not None
    assert spec.name == service
    reads = {read.topic for read in spec.reads}
    own_states = {name for name in reads if TOPICS[name].writer == service and TOPICS[name].cleanup == "compact"}
    declared = {name for name, topic in TOPICS.items() if service in topic.readers}
    assert reads - own_states == declared - NOT_READ_YET


@pytest.mark.parametrize("service", KIT_SERVICES)
def test_only_upstream_times_are_held_against_the_brokers_clock(service: str) -> None:
    spec = spec_of(service)
    assert spec is not None
    assert {read.topic for read in spec.reads if read.upstream} == {
        read.topic for read in spec.reads if TOPICS[read.topic].writer == UPSTREAM
    }


@pytest.mark.parametrize("name", [name for name, topic in TOPICS.items() if topic.writer == UPSTREAM])
def test_one_reader_owns_the_dead_letters_of_a_topic(name: str) -> None:
    specs = [spec for spec in map(spec_of, KIT_SERVICES) if spec is not None]
    owners = [spec.name for spec in specs for read in spec.reads if read.topic == name and read.owns_dead_letters]
    assert len(owners) == (0 if name in NOT_READ_YET else 1)


@pytest.mark.parametrize("service", KIT_SERVICES)
def test_a_service_writes_what_the_registry_says(service: str) -> None:
    written = {name for name, topic in TOPICS.items() if topic.writer == service and topic.types}
    assert emitted_topics(service) == written


def emitted_topics(service: str) -> set[str]:
    """The topics that a service's calls of `emit` and `enqueue` name.

    Where one names a variable, every topic counts that its module imports and the service does not read.
    """
    spec = spec_of(service)
    assert spec is not None
    reads = {read.topic for read in spec.reads}
    found: set[str] = set()
    for path in sources(f"services/{service}"):
        constants = {module.rpartition(".")[2] for module in imported(path) if lies_in(module, "shared.topics")}
        known = {name: value for name in constants if isinstance(value := getattr(topics, name, None), str)}
        for node in ast.walk(tree_of(path)):
            if not (isinstance(node, ast.Call) and _function_name(node.func) in {"emit", "enqueue"}):
                continue
            named = {known[a.id] for a in node.args if isinstance(a, ast.Name) and a.id in known}
            found |= named or (set(known.values()) & TOPICS.keys()) - reads
    return found


def _function_name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None
