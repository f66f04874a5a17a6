"""Control groups over trees of files that look like the kernel's: where a group is made, what it limits, what stays."""

import os
from pathlib import Path

import pytest

from lading_node.engines.cgroup import Group, make_group

LIMIT, THREADS = 1 << 30, 64


def tree(root: Path, version: int, *, delegated: bool = True) -> Path:
    """A hierarchy with our own group /me in it; returns the file that says so."""
    if version == 1:
        for controller in ("pids", "memory"):
            (root / controller / "me").mkdir(parents=True)
        lines = ["8:pids:/me", "4:memory:/me", "0::/"]
    else:
        (root / "slice" / "me").mkdir(parents=True)
        for folder in (root, root / "slice"):
            (folder / "cgroup.subtree_control").write_text("cpu memory pids\n" if delegated else "cpu\n")
        (root / "slice" / "me" / "cgroup.subtree_control").write_text("\n")
        lines = ["0::/slice/me"]
    own = root / "own"
    own.write_text("\n".join(lines) + "\n")
    return own


class Kernel:
    """Makes the files of a group the moment its folder is made, as the kernel does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
        self.made: list[Path] = []
        real_mkdir, real_rmdir = Path.mkdir, Path.rmdir

        def mkdir(folder: Path, *rest: object, **more: object) -> None:
            real_mkdir(folder, *rest, **more)  # type: ignore[arg-type]
            if folder.name.startswith("lading-"):
                self.made.append(folder)
                for name in ("cgroup.procs", *names):
                    (folder / name).touch()

        def rmdir(folder: Path) -> None:
            for file in folder.iterdir():
                file.unlink()
            real_rmdir(folder)

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)


V1 = ("pids.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
V2 = ("pids.max", "memory.max", "memory.swap.max")


def test_version_1_has_a_group_for_each_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tree(tmp_path, 1)
    kernel = Kernel(monkeypatch, V1)
    group = make_group(LIMIT, THREADS, tmp_path, own)
    assert sorted(group.joins.values()) == [("memory",), ("threads",)]
    pids, memory = sorted(set(kernel.made), key=lambda path: path.parts[-3] != "pids")
    assert pids.parent == tmp_path / "pids" / "me"
    assert (pids / "pids.max").read_text() == str(THREADS)
    assert (memory / "memory.limit_in_bytes").read_text() == str(LIMIT)
    assert (memory / "memory.memsw.limit_in_bytes").read_text() == str(LIMIT)
    assert group.remove()
    assert not pids.exists()
    assert not memory.exists()


def test_version_2_has_one_group_where_the_controllers_are_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below our own group none can be made, as processes live in it; the one above us hands the controllers down."""
    own = tree(tmp_path, 2)
    kernel = Kernel(monkeypatch, V2)
    group = make_group(LIMIT, THREADS, tmp_path, own)
    (folder,) = set(kernel.made)
    assert folder.parent == tmp_path / "slice"
    ((fd, names),) = group.joins.items()
    assert set(names) == {"threads", "memory"}
    assert (folder / "memory.max").read_text() == str(LIMIT)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder / "pids.max").read_text() == str(THREADS)
    os.write(fd, b"0")
    assert (folder / "cgroup.procs").read_text() == "0"
    group.close()
    assert group.joins == {}
    assert group.remove()


def test_without_a_limit_on_memory_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tree(tmp_path, 2)
    kernel = Kernel(monkeypatch, V2)
    group = make_group(0, THREADS, tmp_path, own)
    assert list(group.joins.values()) == [("threads",)]
    assert (kernel.made[0] / "memory.max").read_text() == ""
    group.remove()


@pytest.mark.parametrize("case", ["not delegated", "no file"])
def test_where_no_group_can_be_had_nothing_is_claimed(tmp_path: Path, case: str) -> None:
    own = tree(tmp_path, 2, delegated=case != "not delegated")
    if case == "no file":
        own = tmp_path / "nowhere"
    group = make_group(LIMIT, THREADS, tmp_path, own)
    assert group.joins == {}
    assert group.remove()


def test_what_a_killed_program_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tree(tmp_path, 2)
    Kernel(monkeypatch, V2)
    dead, living = tmp_path / "slice" / "lading-999999999-ab", tmp_path / "slice" / f"lading-{os.getpid()}-cd"
    dead.mkdir()
    living.mkdir()
    group = make_group(LIMIT, THREADS, tmp_path, own)
    assert not dead.exists()
    assert living.exists()
    group.remove()


def test_an_empty_group_is_gone_at_once() -> None:
    assert Group().remove()
