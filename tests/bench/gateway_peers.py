"""Other people's gateways, installed by the benchmark itself and started before one and the same upstream.

The Python ones live in virtual environments of their own under build/. A peer that cannot be had is an Absent with the
reason, so that the report can say so.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import ROOT
from .gateway_roles import MODEL
from .processes import on_core

HOME = ROOT / "build" / "bench-peers"
INSTALL_SECONDS = 400
START_SECONDS = 90


class Peer(NamedTuple):
    """`pid` is the root of its process tree."""

    name: str
    address: str
    key: str
    pid: int


class Absent(NamedTuple):
    name: str
    reason: str


class _Plan(NamedTuple):
    """How to start a peer: what is run, and files that it reads, by name."""

    command: list[str]
    files: dict[str, str]
    key: str = "none"


_NGINX = """daemon off; worker_processes 1; pid nginx.pid; error_log error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  upstream up {{ server {upstream}; keepalive 256; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000; tcp_nodelay on;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
_LITELLM = """model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""


def _nginx(upstream: str, port: int) -> _Plan:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise _Missing("nginx is not installed (apt-get install nginx-light)")
    return _Plan([found, "-p", ".", "-c", "nginx.conf"], {"nginx.conf": _NGINX.format(upstream=upstream, port=port)})


def _vllm(upstream: str, port: int) -> _Plan:
    return _router("vllm-router", upstream, port)


def _sglang(upstream: str, port: int) -> _Plan:
    return _router("sglang-router", upstream, port)


def _router(name: str, upstream: str, port: int) -> _Plan:
    scripts = _environment(name, name)
    module = [str(scripts / "python"), "-m", f"{name.replace('-', '_')}.launch_router"]
    options = ["--worker-urls", f"http://{upstream}", "--policy", "round_robin", "--log-level", "error"]
    place = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(_free_port())]
    return _Plan([*module, *options, *place], {})


def _litellm(upstream: str, port: int) -> _Plan:
    scripts, key = _environment("litellm", "litellm[proxy]"), f"sk-{secrets.token_hex(16)}"
    command = [str(scripts / "litellm"), "--config", "c.yaml", "--host", "127.0.0.1", "--port", str(port)]
    return _Plan(command, {"c.yaml": _LITELLM.format(model=MODEL, upstream=upstream)}, key)


PLANS: dict[str, Callable[[str, int], _Plan]] = {
    "nginx": _nginx,
    "vllm-router": _vllm,
    "sglang-router": _sglang,
    "litellm": _litellm,
}


class _Missing(Exception):
    """Why a peer cannot be had."""


def _environment(name: str, requirement: str) -> Path:
    """The scripts of a virtual environment with that package, made once. Raises _Missing."""
    scripts = HOME / name / "bin"
    done = HOME / name / ".done"
    if done.exists():
        return scripts
    print(f"installing {requirement} …", file=sys.stderr, flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(HOME / name)], check=True, capture_output=True)
        install = [str(scripts / "python"), "-m", "pip", "-q", "install", requirement]
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise _Missing(f"pip install {requirement} took over {INSTALL_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise _Missing(f"pip install {requirement} failed: {last[0][:200]}") from None
    done.touch()
    return scripts


@contextlib.contextmanager
def peer(name: str, upstream: str, core: int | None) -> Iterator[Peer | Absent]:
    """Runs until the block ends."""
    port = _free_port()
    try:
        plan = PLANS[name](upstream, port)
    except _Missing as missing:
        yield Absent(name, str(missing))
        return
    with tempfile.TemporaryDirectory() as folder:
        for file, text in plan.files.items():
            Path(folder, file).write_text(text)
        environment = os.environ | {"LITELLM_MASTER_KEY": plan.key, "LITELLM_LOG": "ERROR", "NO_DOCS": "1"}
        with open(Path(folder, "log"), "w+") as log:
            process = subprocess.Popen(
                [*on_core(core), *plan.command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                if _answers(process, port, plan.key):
                    yield Peer(_titled(name), f"127.0.0.1:{port}", plan.key, process.pid)
                else:
                    log.seek(0)
                    yield Absent(name, f"it did not start: {log.read()[-300:].strip()!r}")
            finally:
                _end(process)


def _answers(process: subprocess.Popen[bytes], port: int, key: str) -> bool:
    """Whether it serves a chat, sooner or later."""
    body = b'{"model":"%b","messages":[{"role":"user","content":"hi"}]}' % MODEL.encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            ask = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
            with urllib.request.urlopen(ask, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.3)
    return False


def _titled(name: str) -> str:
    """With its version."""
    if name == "nginx":
        found = shutil.which("nginx") or "/usr/sbin/nginx"
        said = subprocess.run([found, "-v"], capture_output=True, text=True).stderr
        return "nginx " + said.strip().rpartition("/")[2]
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    said = subprocess.run([str(HOME / name / "bin" / "python"), "-c", code], capture_output=True, text=True).stdout
    return f"{name} {said.strip()}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
