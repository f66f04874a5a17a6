"""Runs inside the containers of this folder's tests: an agent that does what it is told, good or bad.

Its first argument is how it begins; after that, each operation is one thing that a stranger's code might try.
"""

import ctypes
import errno
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, "/agent")
from lading_agent import Agent, BadRequest

MODE = sys.argv[1] if len(sys.argv) > 1 else "honest"
if MODE == "broken":
    sys.exit("no model here")
if MODE == "silent":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if MODE == "garbage":
    os.write(1, b"Loading model...\n" * 100)
    time.sleep(600)

agent = Agent("hostile")
SYSCALLS = {
    "unshare": (272, 0x10000000),
    "setns": (308, 0, 0),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "umount2": (166, b"/tmp", 0),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "fsopen": (430, b"tmpfs", 0),
    "open_tree": (428, -100, b"/", 0),
    "ptrace": (101, 16, 1, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, b"user", b"a", b"b", 1, -3),
    "userfaultfd": (323, 0),
    "io_uring_setup": (425, 4, 0),
    "io_uring_enter": (426, 0, 0, 0, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "name_to_handle_at": (303, -100, b"/", 0, 0, 0),
    "init_module": (175, 0, 0, b""),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0),
    "setuid": (105, 0),
    "clone with a user namespace": (56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "syslog": (103, 3, 0, 0),
    "personality, read implies exec": (135, 0x0400000),
    "mknod of a disk": (133, b"/tmp/disk", 0o060600, 0xFE00),
    "settimeofday": (164, 0, 0),
    "sethostname": (170, b"host", 4),
    "swapon": (167, b"/tmp/a", 0),
    "pidfd_getfd": (438, 0, 0, 0),
}
FAMILIES = {"vsock": 40, "netlink": 16, "packet": 17, "alg": 38, "bluetooth": 31, "can": 29, "xdp": 44, "tipc": 30}


@agent.operation
def echo(input, call):
    return input


@agent.operation
def tell(input, call):
    for i in range(input["pieces"]):
        yield f"{i} "
        time.sleep(input.get("pause", 0))


@agent.operation
def chat(input, call):
    yield f"{input['messages'][-1]['content']} seed={input['seed']} "
    yield "one two thr"
    yield "ee four"


@agent.operation
def embed(input, call):
    return {
        "vectors": [[len(text), text.count("a"), 0.5] for text in input["inputs"]],
        "tokens": [len(text.split()) for text in input["inputs"]],
    }


@agent.operation
def refuse(input, call):
    raise BadRequest("Not on a Sunday.")


@agent.operation
def break_(input, call):
    raise RuntimeError("a secret of the agent")


@agent.operation
def slow(input, call):
    began = time.monotonic()
    while not call.cancelled and time.monotonic() - began < input["seconds"]:
        time.sleep(0.01)
    return call.cancelled


@agent.operation
def deaf(input, call):
    time.sleep(600)


@agent.operation
def die(input, call):
    yield "half an ans"
    time.sleep(0.05)
    os._exit(input["status"])


@agent.operation
def stdio(input, call):
    """What a library that asks and prints meets."""
    print("a stray print")
    os.system("echo from a child")
    try:
        return {"read": sys.stdin.read(10), "raw": os.read(0, 10).decode()}
    except OSError as error:
        return {"error": error.errno}


@agent.operation
def inside(input, call):
    """What the agent can see of itself and of its surroundings."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limits = {line[:25].strip(): line[26:].split()[0] for line in Path("/proc/self/limits").read_text().splitlines()}
    return {
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "status": {key: status[key].strip() for key in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp")},
        "limits": limits,
        "environment": dict(os.environ),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "resolver": Path("/etc/resolv.conf").read_text(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "terminal": os.isatty(0) or os.isatty(agent._writer),
    }


@agent.operation
def files(input, call):
    """Each attempt is "done", or the name of its error."""
    tried = {}
    for path in input["write"]:
        tried["write " + path] = attempt(lambda path=path: touch(path, "ab"))
    for path in input["read"]:
        tried["read " + path] = attempt(lambda path=path: touch(path, "rb"))
    Path("/tmp/program").write_text("#!/usr/bin/python3\n")
    os.chmod("/tmp/program", 0o755)
    tried["exec /tmp/program"] = attempt(lambda: os.execv("/tmp/program", ["/tmp/program"]))
    return tried


def touch(path, mode):
    with open(path, mode, buffering=0) as file:
        file.read(1) if mode == "rb" else file.write(b"x")


@agent.operation
def network(input, call):
    tried = {}
    for family, address in ((socket.AF_INET, input["v4"]), (socket.AF_INET6, input["v6"])):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            tried[f"{family.name} {kind.name}"] = attempt(lambda f=family, k=kind, a=address: connect(f, k, a))
    tried["raw"] = attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    tried["host unix socket"] = attempt(lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, input["unix"]))
    tried["abstract unix socket"] = attempt(lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, input["abstract"]))
    for name, number in FAMILIES.items():
        tried[name] = attempt(lambda n=number: socket.socket(n, socket.SOCK_RAW if n == 17 else socket.SOCK_DGRAM))
        if name == "vsock":
            tried["vsock stream"] = attempt(lambda: socket.socket(40, socket.SOCK_STREAM))
    tried["vsock pair"] = attempt(lambda: socket.socketpair(40, socket.SOCK_STREAM))
    return tried


def connect(family, kind, address):
    with socket.socket(family, kind) as link:
        link.settimeout(1)
        link.connect(tuple(address) if isinstance(address, list) else address)
        link.send(b"x")


@agent.operation
def syscalls(input, call):
    """Each by its number, in a child: one that kills the caller shows as such."""
    libc = ctypes.CDLL(None, use_errno=True)
    tried = {}
    for name, (number, *arguments) in SYSCALLS.items():
        child = os.fork()
        if child == 0:
            found = libc.syscall(number, *arguments)
            os._exit(ctypes.get_errno() if found < 0 else 0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        tried[name] = "done" if code == 0 else errno.errorcode.get(code, str(code))
    return tried


@agent.operation
def fork(input, call):
    """How many children can be had."""
    children = []
    try:
        while len(children) < 1000:
            child = os.fork()
            if child == 0:
                time.sleep(600)
                os._exit(0)
            children.append(child)
    except OSError as error:
        reason = errno.errorcode[error.errno]
    else:
        reason = "none"
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"children": len(children), "reason": reason}


@agent.operation
def bomb(input, call):
    """A fork bomb that nobody tidies up, and that ignores being asked to end."""
    while True:
        try:
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
        except OSError:
            pass


@agent.operation
def memory(input, call):
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20) * 8))


@agent.operation
def fill(input, call):
    written = {}
    for folder in ("/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var", "/"):
        size, data = 0, bytes(1 << 20)
        try:
            with open(f"{folder}/full", "wb", buffering=0) as file:
                while size < 1 << 30:
                    size += file.write(data)
        except OSError as error:
            written[folder] = [size, errno.errorcode[error.errno]]
    return written


@agent.operation
def flood(input, call):
    frame = input["frame"].replace("ID", str(call.id)).encode()
    data = (len(frame).to_bytes(4, "big") + frame) * 100
    while True:
        os.write(agent._writer, data)


@agent.operation
def shout(input, call):
    data = b"x" * 65536
    while True:
        os.write(2, data)


@agent.operation
def raw(input, call):
    """Bytes of the test's own choice instead of an answer."""
    data = bytes.fromhex(input["hex"])
    os.write(agent._writer, data)
    time.sleep(600)


@agent.operation
def lie(input, call):
    """A frame of the test's own choice, then the honest answer."""
    frame = input["frame"].replace("ID", str(call.id)).encode()
    os.write(agent._writer, len(frame).to_bytes(4, "big") + frame)
    time.sleep(0.2)
    return "honest"


@agent.operation
def late(input, call):
    """Goes on talking after it was told to stop; ends half a second later."""
    while not call.cancelled:
        yield "word "
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        agent._send({"out": call.id, "text": "more "})
        time.sleep(0.01)


@agent.operation
def survive(input, call):
    """Holds on to life: ignores what can be ignored, and keeps a child that holds the pipes."""
    for number in range(1, 32):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    return os.getpid()


def attempt(work):
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "done"


if MODE == "liar":
    agent._operations = {"echo": echo}
if MODE == "twice":
    agent._send({"ready": {"name": "twice", "operations": ["echo"]}})
if MODE == "early":
    agent._send({"out": 1, "text": "an answer to nobody"})
agent.run()
