"""The system calls that an engine's process gives up for good (seccomp(2)): our own list, as a classic BPF program.

An engine computes over memory and files that are open to it. So what talks to anybody, starts a program, looks into
another process or changes the system is refused with EPERM, which libraries take for "not here"; `clone3` with ENOSYS,
so that the C library makes its threads the older way, whose arguments a filter can read.
"""

import ctypes
import errno
import platform
import struct
import sys

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENT = 0, 4, 16
_ARCHES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000  # x86-64's second set of numbers, which would pass by every comparison below
_CLONE_THREAD = 0x10000
_PDEATHSIG = 1
_AF_UNIX = 1
# Sockets that reach nobody before they are connected, with every flag that is set at once. The others of the family are
# datagrams, half of a pair too: those are sent to any process that listens for some, the system's log among them.
_CONNECTED = tuple(kind | close | wait for kind in (1, 5) for close in (0, 0x80000) for wait in (0, 0x800))
_TIOCSTI = 0x5412

# "name x86-64 arm64", a dash where there is none.
_DENIED_TEXT = """
# Talking.
connect 42 203; bind 49 200; listen 50 201; accept 43 202; accept4 288 242
io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427
shmget 29 194; msgget 68 186; semget 64 190; mq_open 240 180
# Other programs and processes.
fork 57 -; vfork 58 -; execve 59 221; execveat 322 281
kill 62 129; tkill 200 130; rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240
ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271
process_madvise 440 440; process_mrelease 448 448; kcmp 312 272
pidfd_open 434 434; pidfd_getfd 438 438; pidfd_send_signal 424 424
setpriority 141 140; ioprio_set 251 30; migrate_pages 256 238; move_pages 279 239
# The kernel's large and rarely needed parts.
bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; personality 135 92
keyctl 250 219; add_key 248 217; request_key 249 218; lookup_dcookie 212 18
kexec_load 246 104; kexec_file_load 320 294; syslog 103 116; acct 163 89
init_module 175 105; finit_module 313 273; delete_module 176 106; nfsservctl 180 42
iopl 172 -; ioperm 173 -; modify_ldt 154 -; uselib 134 -
# The system, its mounts and its namespaces.
mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51
move_mount 429 429; open_tree 428 428; fsopen 430 430; fsconfig 431 431
fsmount 432 432; fspick 433 433; mount_setattr 442 442
unshare 272 97; setns 308 268; mknod 133 -; mknodat 259 33
name_to_handle_at 303 264; open_by_handle_at 304 265
fanotify_init 300 262; fanotify_mark 301 263; quotactl 179 60; quotactl_fd 443 443
reboot 169 142; swapon 167 224; swapoff 168 225; vhangup 153 58
sethostname 170 161; setdomainname 171 162
clock_settime 227 112; clock_adjtime 305 266; settimeofday 164 170; adjtimex 159 171
# Becoming somebody else.
setuid 105 146; setgid 106 144; setreuid 113 145; setregid 114 143
setresuid 117 147; setresgid 119 149; setgroups 116 159
setfsuid 122 151; setfsgid 123 152; capset 126 91
"""
# CUDA opens a place where other processes might ask for its memory, and does not start without it. Nobody does: who
# connects is refused, and the place is in a network of the process's own.
_OF_DRIVERS = frozenset({"bind", "listen"})
_SOCKET, _SOCKETPAIR, _CLONE, _CLONE3 = (41, 198), (53, 199), (56, 220), (435, 435)
_TGKILL, _PRCTL, _PRLIMIT, _IOCTL = (234, 131), (157, 167), (302, 261), (16, 29)


def _denied(column: int) -> dict[str, int]:
    entries = [entry.split() for line in _DENIED_TEXT.splitlines() if line[:1] != "#" for entry in line.split(";")]
    return {entry[0]: int(entry[1 + column]) for entry in entries if entry and entry[1 + column] != "-"}


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


_REFUSE = _step(_RETURN, _ERRNO | errno.EPERM)
_PASS = _step(_RETURN, _ALLOW)


def _only(number: int, argument: int, *values: int) -> bytes:
    """Let the call through when the low half of an argument is one of `values`."""
    at_load = _step(_LOAD, _AT_ARGUMENT + 8 * argument)
    tests = b"".join(_step(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values))
    body = at_load + tests + _REFUSE + _PASS
    return _step(_EQUAL, number, 0, len(body) // 8) + body


def _local(number: int) -> bytes:
    """Let sockets between processes be made, of a kind that is connected."""
    tests = b"".join(_step(_EQUAL, kind, len(_CONNECTED) - i, 0) for i, kind in enumerate(_CONNECTED))
    kinds = _step(_LOAD, _AT_ARGUMENT + 8) + tests + _REFUSE + _PASS
    body = _step(_LOAD, _AT_ARGUMENT) + _step(_EQUAL, _AF_UNIX, 1, 0) + _REFUSE + kinds
    return _step(_EQUAL, number, 0, len(body) // 8) + body


def _except(number: int, argument: int, value: int) -> bytes:
    """Refuse the call when the low half of an argument is `value`."""
    body = _step(_LOAD, _AT_ARGUMENT + 8 * argument) + _step(_EQUAL, value, 0, 1) + _REFUSE + _PASS
    return _step(_EQUAL, number, 0, len(body) // 8) + body


def program(machine: str, pid: int, *, unix: bool, device: bool = False) -> bytes:
    """The filter for `machine` ("x86_64" or "aarch64"). `unix` lets sockets between processes be made and connected, no
    others; `device` lets the driver of a graphics card have what it does not start without."""
    arch, column = _ARCHES[machine]
    parts = [_step(_LOAD, _AT_ARCH), _step(_EQUAL, arch, 1, 0), _REFUSE, _step(_LOAD, _AT_NUMBER)]
    if machine == "x86_64":
        parts += [_step(_AT_LEAST, _X32, 0, 1), _REFUSE]
    spared = frozenset({"connect"} if unix else ()) | (_OF_DRIVERS if device else frozenset())
    for name, number in _denied(column).items():
        if name not in spared:
            parts += [_step(_EQUAL, number, 0, 1), _REFUSE]
    parts += [_step(_EQUAL, _CLONE3[column], 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    thread = _step(_LOAD, _AT_ARGUMENT) + _step(_ANY_BIT, _CLONE_THREAD, 1, 0) + _REFUSE + _PASS
    parts += [_step(_EQUAL, _CLONE[column], 0, len(thread) // 8), thread]
    parts += [_local(_SOCKET[column]) if unix or device else _only(_SOCKET[column], 0), _local(_SOCKETPAIR[column])]
    parts += [_only(_TGKILL[column], 0, pid), _only(_PRLIMIT[column], 0, 0, pid)]
    parts += [_except(_PRCTL[column], 0, _PDEATHSIG), _except(_IOCTL[column], 1, _TIOCSTI), _PASS]
    return b"".join(parts)


def seal(pid: int, *, unix: bool = False, device: bool = False) -> bool:
    """Whether it holds, from now on and for every thread started later. Needs "no new privileges" set before."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHES:
        return False
    code = program(machine, pid, unix=unix, device=device)
    steps = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0) == 0)
