"""The tests of the coordinator's books once more, on a PostgreSQL server: what holds for the file holds for it."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lading_coordinator import main
from lading_coordinator.postgres import PostgresStore
from postgres_server import Server
from unit.coordinator import test_auditing, test_conduct, test_ledger, test_sessions
from unit.coordinator.conftest import player

MODULES = (test_ledger, test_conduct, test_auditing, test_sessions)
# Of the file itself (a disk that is full, what lies in the folder), or an hour long without a word to the store.
OF_THE_FILE = {
    "test_a_full_disk_stops_no_answer_and_loses_no_record",
    "test_a_full_disk_delays_records_and_loses_none",
    "test_a_file_that_is_no_ledger",
    "test_an_older_ledger_loses_the_indexes_that_were_replaced",
    "test_the_records_of_a_moment_stand_side_by_side",
    "test_the_stored_file_holds_no_secret",
    "test_one_daemon_on_a_folder",
    "test_sessions_are_bounded",
}
FIXTURES = {"tmp_path", "desk", "play", "monkeypatch"}


def chosen() -> list[Any]:
    found = []
    for module in MODULES:
        for name, test in vars(module).items():
            plain = name.startswith("test_") and inspect.isfunction(test) and not hasattr(test, "pytestmark")
            if plain and name not in OF_THE_FILE and set(inspect.signature(test).parameters) <= FIXTURES:
                found.append(pytest.param(module, test, id=f"{module.__name__.rpartition('.')[2]}-{name}"))
    return found


class Drawers:
    """Gives each path a schema; the same path the same one again, as after a restart."""

    def __init__(self, database: Server) -> None:
        self._database = database
        self._urls: dict[str, str] = {}
        self._opened: list[PostgresStore] = []

    def url(self, path: Path | str) -> str:
        name = str(path)
        if name == ":memory:" or name not in self._urls:
            self._urls[name] = self._database.url()
        return self._urls[name]

    def open(self, path: Path | str) -> PostgresStore:
        self._opened.append(PostgresStore(self.url(path), exclusive=False))
        return self._opened[-1]

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.mark.parametrize(("module", "test"), chosen())
def test_as_in_a_file(
    module: ModuleType,
    test: Callable[..., None],
    database: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    drawers = Drawers(database)
    request.addfinalizer(drawers.close)
    if hasattr(module, "Store"):
        monkeypatch.setattr(module, "Store", drawers.open)
    # A coordinator that "crashes" in these stories lives on in this process, and would keep the next one out.
    monkeypatch.setattr(main, "open_store", lambda settings, exclusive=True: drawers.open(settings.home))
    given: dict[str, Any] = {
        "tmp_path": tmp_path,
        "play": partial(player(tmp_path), ledger="postgresql://"),
        "monkeypatch": monkeypatch,
    }
    wanted = inspect.signature(test).parameters
    if "desk" in wanted:
        given["desk"] = test_conduct.Desk(tmp_path / "coordinator.sqlite")
    test(**{name: given[name] for name in wanted})
