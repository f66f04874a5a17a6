"""A PostgreSQL server of a test's own: in a folder that goes with it, on a unix socket, under an unprivileged user."""

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tools import missing

_names = count()


def programs() -> Path:
    """The folder of initdb and postgres; Debian keeps them off the path."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if not folders:
        missing("PostgreSQL is not installed")
    return folders[-1].parent


class Server:
    """`stop` and `start` as often as wanted; what was committed stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = programs()
        # postgres refuses to run as root.
        self.user = _other_user() if os.geteuid() == 0 else getpass.getuser()
        self.process: subprocess.Popen[bytes] | None = None
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        plain = ["-U", "lading", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]
        self._run("initdb", "-D", str(folder / "data"), *plain)

    def start(self) -> None:
        options = {"listen_addresses": "", "fsync": "off", "unix_socket_directories": str(self.folder)}
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        command = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, **self._as()
        )
        ask = [str(self.bin / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(ask, check=False, cwd=self.folder).returncode:
            assert self.process.poll() is None, "postgres did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as in a crash; clients are cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)
            self.process = None

    def url(self) -> str:
        """An empty schema of its own."""
        name = f"t{next(_names)}"
        with psycopg.connect(f"postgresql://lading@/postgres?host={self.folder}", autocommit=True) as connection:
            connection.execute(f"create schema {name}".encode())
        return f"postgresql://lading@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(command, capture_output=True, check=False, cwd=self.folder, **self._as())
        assert done.returncode == 0, done.stderr

    def _as(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _other_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextmanager
def postgres() -> Iterator[Server]:
    programs()
    # A socket's path has at most 107 characters, and the folder above must let the other user through.
    folder = Path(tempfile.mkdtemp(prefix="lading-pg-", dir="/tmp"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
