"""Machine code never stands in for a source that was edited, and a machine that cannot compile loses nothing."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compiling.build import FOLDER, ROOT, fresh, lacking, modules, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A compiled folder as its guard sees it, made of one source; without the machine code, which is not looked at."""
    source = tmp_path / "checkout" / "some.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    made = tmp_path / "compiled"
    (made / "lading_protocol").mkdir(parents=True)
    (made / "lading_protocol" / "__init__.py").write_text("from lading_protocol import _guard as _guard\n")
    shutil.copy(ROOT / "tools" / "compiling" / "guard.py", made / "lading_protocol" / "_guard.py")
    digests = {"some.py": hashlib.sha256(source.read_bytes()).hexdigest()}
    (made / "compiled.json").write_text(json.dumps({"root": str(source.parent), "digests": digests}))
    return made


def imported(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", "import lading_protocol; print(lading_protocol.__file__)"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_is_imported_while_the_sources_are_as_they_were(folder: Path) -> None:
    done = imported(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(folder))


def test_an_edited_source_is_told_by_name(folder: Path) -> None:
    (folder.parent / "checkout" / "some.py").write_text("x = 2\n")
    done = imported(folder)
    assert done.returncode == 1
    assert "ImportError: some.py was edited after it was compiled. Run `make compiled`" in done.stderr


def test_where_the_sources_are_gone_there_is_nothing_to_compare(folder: Path) -> None:
    shutil.rmtree(folder.parent / "checkout")
    assert imported(folder).returncode == 0


def test_a_folder_of_other_sources_is_not_fresh(folder: Path) -> None:
    assert not fresh(folder)
    assert not fresh(folder / "nowhere")


def test_without_a_compiler_it_says_so_and_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    assert lacking() == "there is no C compiler here (no-such-compiler)"
    if fresh(FOLDER):
        return
    command = [sys.executable, "tools/compile.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Not compiled: there is no C compiler here" in done.stderr


def test_every_compiled_module_is_there_and_watched() -> None:
    assert set(modules()) <= set(sources())
