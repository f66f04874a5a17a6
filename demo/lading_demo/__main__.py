"""`make demo`: plays all scenes, shows the books, and exits non-zero when any point did not hold."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path

import msgspec
import openai

from lading_demo import justice, scenes
from lading_demo.cast import Cast
from lading_demo.screen import Missed, Screen
from lading_demo.stage import Fallen, Stage
from lading_demo.theatre import Theatre
from lading_protocol.errors import LadingError


class Options(msgspec.Struct, frozen=True):
    """`report` is where a JSON record of scenes and failures goes, if anywhere."""

    keep: bool
    folder: Path
    report: Path | None


async def play(screen: Screen, options: Options) -> None:
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    screen.console.print("[bold]Lading[/]: one inference, served, checked, paid and split, through every real part.")
    screen.console.print(f"[dim]Logs: {options.folder}[/]", soft_wrap=True)
    async with Stage(options.folder) as stage:
        t = Theatre(options.folder, stage, screen, Cast("demo"))
        try:
            await scenes.chain_and_contracts(t)
            await scenes.a_coordinator_and_agents(t)
            await t.books.read()
            before = {party.name: await justice.worth(t, party) for party in t.cast.everyone}
            await scenes.four_nodes(t)
            await scenes.a_consumer(t)
            await scenes.a_host_dies(t)
            await t.stage.stop(t.cast.greedy.name)
            await justice.a_cheat(t, t.cast.greedy, "chat-small", "a model a quarter of the size")
            await t.stake(t.cast.thrifty)
            await justice.a_cheat(t, t.cast.thrifty, "chat-int4", "int4 weights")
            await justice.honest_unharmed(t)
            await justice.settlement(t)
            await justice.the_books(t, before)
            if options.keep:
                await linger(t)
        finally:
            await t.close()


async def linger(t: Theatre) -> None:
    """KEEP=1: the network comes back up and stays until Ctrl-C."""
    for n, host in enumerate(t.cast.hosts):
        await t.raise_node(host, f"0.2{n}", f"0.6{n}", t.served_by(host))

    async def ready() -> bool:
        return all([await t.linked(host) for host in t.cast.hosts])

    await t.screen.until("the nodes come back", ready)
    question = [{"role": "user", "content": scenes.STORY}]
    body = json.dumps({"model": scenes.CHAT, "stream": True, "messages": question})
    for line in (
        "",
        "Up and running.",
        f"  status page   {t.http}/",
        f"  OpenAI URL    {t.http}/v1",
        f"  API key       {t.api_key}",
        f"  chain         {t.chain_url}",
        f"  data, logs    {t.folder}",
        "",
        "# with curl",
        f"curl -N {t.http}/v1/chat/completions -H 'authorization: Bearer {t.api_key}' \\",
        f"  -H 'content-type: application/json' -d '{body}'",
        "",
        "# with the openai package",
        "import openai",
        f'client = openai.OpenAI(base_url="{t.http}/v1", api_key="{t.api_key}")',
        f'client.chat.completions.create(model="{scenes.CHAT}", messages={json.dumps(question)})',
        "",
        "Ctrl-C ends it and cleans up.",
    ):
        t.screen.console.print(line, markup=False, soft_wrap=True)
    await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="lading_demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything up at the end, and say where")
    parser.add_argument("--folder", type=Path, default=scenes.ROOT / "build/demo", help="data and logs; emptied first")
    parser.add_argument("--report", type=Path, help="write scenes, seconds and failures as JSON")
    options = Options(**vars(parser.parse_args()))
    screen = Screen()
    try:
        asyncio.run(supervised(screen, options))
    except (Missed, Fallen, LadingError, openai.OpenAIError) as error:
        screen.failed.append(str(error))
        screen.console.print(f"\n[bold red]stopped[/]  {error}", soft_wrap=True)
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.console.print("\nStopped; nothing is left running.")
        return 130
    return verdict(screen, options)


async def supervised(screen: Screen, options: Options) -> None:
    """Ctrl-C and SIGTERM unwind alike, also where a shell started us with Ctrl-C ignored."""
    playing = asyncio.ensure_future(play(screen, options))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    await playing


def verdict(screen: Screen, options: Options) -> int:
    if options.report is not None:
        scenes_played = [{"scene": title, "seconds": round(seconds, 2)} for title, seconds in screen.times]
        record = {"seconds": round(screen.elapsed, 2), "scenes": scenes_played, "failed": screen.failed}
        options.report.write_text(json.dumps(record, indent=2) + "\n")
    screen.console.print()
    for title, seconds in screen.times:
        screen.console.print(f"[dim]{seconds:6.1f} s  {title}[/]", soft_wrap=True)
    if screen.failed:
        screen.console.print(f"\n[bold red]{len(screen.failed)} points did not hold:[/]")
        for text in screen.failed:
            screen.console.print(f"  ✗ {text}", soft_wrap=True)
        screen.console.print(f"Logs: {options.folder}", soft_wrap=True)
        return 1
    screen.console.print(f"\n[bold green]Every point held[/], in {screen.elapsed:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
