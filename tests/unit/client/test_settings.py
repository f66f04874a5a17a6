"""Settings: which source wins, and what a wrong value is told."""

from pathlib import Path

import pytest

from lading.errors import BadSettings
from lading.settings import Settings, read

FILE = """
[client]
base_url = "http://file"
peers = ["/ip4/127.0.0.1/tcp/1"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(FILE)
    return path


def test_flags_win_over_the_environment_which_wins_over_the_file(file: Path) -> None:
    env = {"LADING_CLIENT_BASE_URL": "http://env", "LADING_CLIENT_PEERS": "a,b"}
    assert read(Settings, "client", {}, file, {}).base_url == "http://file"
    assert read(Settings, "client", {"base_url": None}, file, env).base_url == "http://env"
    assert read(Settings, "client", {"base_url": "http://flag"}, file, env).base_url == "http://flag"
    assert read(Settings, "client", {}, file, env).peers == ("a", "b")
    assert read(Settings, "client", {}, file, {}).api_key == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[client]\nbase_url = 5", ("client.base_url", "settings.toml")),
        ("[client]\nbase_ur = 'x'", ("client.base_ur", "settings.toml", "Is base_url meant?")),
        ("client = 5", ("[client]",)),
        ("[client", ("does not read",)),
    ],
)
def test_a_wrong_file_is_named_with_its_setting(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(BadSettings) as caught:
        read(Settings, "client", {}, path, {})
    assert all(word in str(caught.value) for word in words)


def test_a_named_file_must_exist_and_the_usual_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(BadSettings):
        read(Settings, "client", {}, tmp_path / "none.toml", {})
    assert read(Settings, "client", {}, None, {"LADING_HOME": str(tmp_path)}).home
