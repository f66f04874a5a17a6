"""Asks every vendor's file in a process of its own, all at once, each with a deadline; run with -m it is that process.

Drivers hang, and their libraries print, crash and raise at import: none of that may reach the node, and a vendor that
fails says why while the others answer.
"""

import asyncio
import os
import sys
from importlib import import_module

import msgspec

from lading_node.hardware.devices import VENDORS, Device, Inventory, Vendor
from lading_node.hardware.errors import NotThere

DEADLINE_SECONDS = 10.0
_MOST = 1 << 20
_COMMAND = (sys.executable, "-I", "-X", "utf8", "-m", "lading_node.hardware.discover")


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a vendor's process writes: devices, or why there are none."""

    devices: tuple[Device, ...] = ()
    trouble: str = ""


async def discover(
    deadline: float = DEADLINE_SECONDS, vendors: tuple[Vendor, ...] = VENDORS, command: tuple[str, ...] = _COMMAND
) -> Inventory:
    """Never raises for what a vendor does. `command` is run for each vendor, with its name and our process id."""
    answers = await asyncio.gather(*(_ask(vendor, deadline, command) for vendor in vendors))
    devices = tuple(device for answer in answers for device in answer.devices)
    pairs = zip(vendors, answers, strict=True)
    return Inventory(devices, {vendor: answer.trouble for vendor, answer in pairs if answer.trouble})


async def _ask(vendor: Vendor, deadline: float, command: tuple[str, ...]) -> Answer:
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, vendor, str(os.getpid()), stdin=null, stdout=pipe, stderr=null
        )
    except OSError as error:
        return Answer(trouble=f"no process can be started to ask ({error.strerror})")
    assert process.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(deadline):
            while len(said) <= _MOST and (part := await process.stdout.read(1 << 16)):
                said += part
            if len(said) <= _MOST:
                await process.wait()
    except TimeoutError:
        return Answer(trouble=f"it did not answer within {deadline:g} s")
    finally:
        if process.returncode is None:
            process.kill()
            # Its end is told only once its pipe is empty, and a full reader has stopped to empty it.
            while await process.stdout.read(1 << 16):
                pass
            await process.wait()
    try:
        return msgspec.json.decode(said, type=Answer)
    except msgspec.MsgspecError:
        return Answer(trouble=f"its process broke (status {process.returncode})")


def answer(vendor: str) -> Answer:
    """What this vendor's file finds, whatever it raises."""
    try:
        return Answer(tuple(import_module(f"lading_node.hardware.{vendor}").probe()))
    except NotThere as why:
        return Answer(trouble=str(why))
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        return Answer(trouble=f"asking failed ({type(error).__name__}: {words})")


def main() -> int:
    from lading_node.engines.confine import die_with, take_stdio

    vendor, parent = sys.argv[1], int(sys.argv[2])
    die_with(parent)
    _, writing = take_stdio()  # a library that prints must not write into the answer
    with open(writing, "wb") as out:
        out.write(msgspec.json.encode(answer(vendor)))
    return 0


def described(inventory: Inventory) -> list[str]:
    """One line a vendor without devices."""
    return [f"{_NAMES[vendor]}: {why}." for vendor, why in inventory.troubles.items()]


_NAMES = {"cpu": "CPU", "nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "apple": "Apple"}


if __name__ == "__main__":
    sys.exit(main())
