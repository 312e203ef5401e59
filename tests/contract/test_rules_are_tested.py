"""Every rule has a test that carries its number, and the documents name only tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RULES_DOCUMENT = ROOT / "docs" / "rules.md"

RULES = range(1, 33)
NOT_BUILT = {25, 32}
"""The monthly limit of a seat, and erasure."""
BUILT = sorted(set(RULES) - NOT_BUILT)

_HEADING = re.compile(r"^### R(\d+)\b", re.MULTILINE)
_SECTION = re.compile(r"^### R(\d+)\b.*?(?=^### |\Z)", re.MULTILINE | re.DOTALL)
_TEST_NAME = re.compile(r"\btest_r?[a-z]*\d*_\w+\b(?!\.py)")


@cache
def existing_tests() -> frozenset[str]:
    """The name of every test function of the suite."""
    return frozenset(
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def shown_by(rule: int) -> set[str]:
    """The tests that carry a rule's number; one may carry several: test_r17_r18_..."""
    return {name for name in existing_tests() if re.match(rf"test_(r\d\d_)*r{rule:02d}_", name)}


def documents_with_tests() -> list[Path]:
    return [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if "test_" in path.read_text()]


@pytest.mark.parametrize("rule", BUILT)
def test_a_rule_has_a_test_with_its_number(rule: int) -> None:
    assert shown_by(rule)


def test_every_rule_is_described_once() -> None:
    assert sorted(map(int, _HEADING.findall(RULES_DOCUMENT.read_text()))) == list(RULES)


@pytest.mark.parametrize("rule", BUILT)
def test_a_rules_description_names_tests_of_that_rule(rule: int) -> None:
    sections = {int(found[1]): found[0] for found in _SECTION.finditer(RULES_DOCUMENT.read_text())}
    assert set(_TEST_NAME.findall(sections[rule])) & shown_by(rule)


@pytest.mark.parametrize("document", documents_with_tests(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_tests_that_exist(document: Path) -> None:
    named = set(_TEST_NAME.findall(document.read_text()))
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert named - existing_tests() - files == set()
