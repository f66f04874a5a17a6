"""What the pages name exists: commands and flags, settings, links, files, make targets, and names of the code."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App

from lading.cli.main import app
from lading.settings import Settings
from lading_coordinator.settings import CoordinatorSettings
from lading_node.settings import NodeSettings

ROOT = Path(__file__).parents[3]
SECTIONS = {"client": Settings, "node": NodeSettings, "coordinator": CoordinatorSettings}
# What a page may name though no file of ours has it.
FOREIGN = {"other_url", "other_key", "z_max", "x_max"}


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(ROOT / name for name in listed.split("\0") if name)


def pages() -> list[Path]:
    """All but the changelog, which names what was, and the benchmarks, whose names a program made."""
    made = {"CHANGELOG.md", "benchmarks.md"}
    return [path for path in tracked() if path.suffix == ".md" and path.name not in made]


def code(page: Path) -> Iterator[str]:
    """Each line of the page's blocks, and each piece of code in its sentences."""
    text = page.read_text()
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from inline(page)


def inline(page: Path) -> list[str]:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [one.replace("\n", " ") for one in re.findall(r"`([^`]+)`", prose)]


@cache
def words() -> frozenset[str]:
    """Every word of the sources, and every name of a file."""
    found: set[str] = set()
    for path in tracked():
        found |= set(re.split(r"\W+", str(path.relative_to(ROOT))))
        if path.suffix in (".py", ".sol", ".toml", ".rs", ".c", ".js", ".html", ".yml", ".txt", "") and path.is_file():
            found |= {word.strip("_") for word in re.findall(r"\w+", path.read_text(errors="replace"))}
    return frozenset(found)


def understood(line: str) -> str:
    """Why a person who types a line that begins with `lading` would be refused; "" when it has our words."""
    group: App = app
    typed = line.split(" #")[0].split()[1:]
    while below := [name for name in group if not name.startswith("-")]:
        if not typed or typed[0] not in below:
            break
        group = group[typed.pop(0)]
    if below:
        return f"there is no command {typed[0]!r}" if typed and typed[0] not in ("|", "--help", "...") else ""
    flags = {"--help"}.union(*(argument.names for argument in group.assemble_argument_collection()))
    for word in typed:
        if word in ("|", "&&", ";"):
            break
        flag = re.match(r"--[a-z][a-z-]*", word)
        if flag and flag.group() not in flags:
            return f"there is no flag {flag.group()}"
    return ""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_their_flags_are_there(page: Path) -> None:
    lines = [line.strip().removeprefix("$ ") for line in code(page)]
    refused = {
        line: understood(line) for line in lines if line.startswith("lading ") and not line.startswith("lading /")
    }
    assert not {line: why for line, why in refused.items() if why}


def test_a_wrong_command_would_be_noticed() -> None:
    assert understood("lading bid offer 3") == "there is no command 'offer'"
    assert understood("lading wallet deposit 3 --from me") == "there is no flag --from"
    assert understood("lading wallet deposit 3 --for 0x12 --dry-run  # coins") == ""


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_and_files_are_there(page: Path) -> None:
    rules = (ROOT / "Makefile").read_text()
    for piece in inline(page):
        target = re.fullmatch(r"make ([a-z][a-z-]*).*", piece)
        if target:
            assert re.search(rf"^{target.group(1)}:", rules, re.MULTILINE) or target.group(1).startswith("bench-"), (
                piece
            )
        if re.fullmatch(r"(tests|docs|node|client|coordinator|contracts|protocol|demo)/[\w./-]*\w\.\w+", piece):
            assert (ROOT / piece).exists(), piece


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_are_there(page: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        for section, table in tomllib.loads(block).items():
            if section in SECTIONS:
                assert set(table) <= set(SECTIONS[section].__struct_fields__), block
    for piece in inline(page):
        for section, kind in SECTIONS.items():
            for name in re.findall(rf"\b{section}\.([a-z]+(?:_[a-z]+)+)\b", piece):
                assert name in kind.__struct_fields__, piece
            for name in re.findall(rf"\bLADING_{section.upper()}_([A-Z]+(?:_[A-Z]+)*)\b", piece):
                assert name.lower() in kind.__struct_fields__, piece


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_code_are_there(page: Path) -> None:
    """A name with an underscore in the page's code is one of ours: what was renamed is noticed here."""
    said = {word.strip("_") for piece in inline(page) for word in re.findall(r"\w+\b(?!\*)", piece)}
    named = {word for word in said if "_" in word and not word[0].isdigit()}
    assert named <= words() | FOREIGN
