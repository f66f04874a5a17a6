"""`make demo`: plays all scenes, shows the books, and exits non-zero when any point did not hold."""

import argparse
import asyncio
import shutil
import signal
import sys

from rich.table import Table

from lading_demo import scenes
from lading_demo.books import Estate
from lading_demo.cast import Cast
from lading_demo.screen import Missed, Screen
from lading_demo.stage import Fallen, Stage
from lading_demo.theatre import Theatre
from lading_protocol.errors import LadingError
from lading_protocol.pricing import format_amount

FOLDER = scenes.ROOT / "build/demo"


async def play(screen: Screen, keep: bool) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    async with Stage(FOLDER) as stage:
        t = Theatre(FOLDER, stage, screen, Cast(FOLDER.as_posix()))
        try:
            await scenes.chain_and_contracts(t)
            await scenes.a_coordinator_and_agents(t)
            await t.books.read()
            before = {party.name: await worth(t, party.name) for party in t.cast.everyone}
            await scenes.four_nodes(t)
            await scenes.a_consumer(t)
            await scenes.a_host_dies(t)
            await t.stage.stop(t.cast.greedy.name)
            await scenes.a_cheat(t, t.cast.greedy, "chat-small", "a model a quarter of the size", "0.10")
            await t.stake(t.cast.thrifty)
            await scenes.a_cheat(t, t.cast.thrifty, "chat-int4", "int4 weights", "0.10")
            await scenes.honest_unharmed(t)
            await scenes.settlement(t)
            await the_books(t, before)
            if keep:
                await linger(t)
        finally:
            await t.close()


async def worth(t: Theatre, name: str) -> Estate:
    """All that a party owns, at its hot and its cold address."""
    party = next(one for one in t.cast.everyone if one.name == name)
    estates = [await t.books.estate(address) for address in party.addresses]
    return Estate(*(sum(getattr(e, field) for e in estates) for field in Estate.__struct_fields__))


async def the_books(t: Theatre, before: dict[str, Estate]) -> None:
    """Each party's gain or loss and why; the sum must be zero to the wei, and the contracts must hold what they owe."""
    async with t.screen.scene("The books"):
        await t.books.read()
        after = {name: await worth(t, name) for name in before}
        burnt = int(sum(slash.burnt for slash in t.books.slashes))
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
        for name, justify in (("party", "left"), ("earned or lost, LADE", "right"), ("why", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        total: int = burnt
        for name in before:
            change = after[name].total - before[name].total
            total += change
            table.add_row(name, f"{'+' if change > 0 else ''}{format_amount(change, 18)}", why(t, name))
        table.add_row("burnt", format_amount(burnt, 18), "the burnt share of both slashes")
        table.add_row("[bold]sum[/]", f"[bold]{format_amount(total, 18)}[/]", "")
        t.screen.table(table)
        t.screen.claim("the sum is zero to the wei", total == 0)
        for holding in await t.books.holdings():
            t.screen.claim(
                f"{holding.name} holds {scenes.lade(holding.held)}, exactly what it owes", holding.held == holding.owed
            )


def why(t: Theatre, name: str) -> str:
    cast = t.cast
    if name == cast.consumer.name:
        refunds = sum(r.refunded for r in t.books.rulings)
        return f"paid for {sum(p['tokens'] for p in t.parts):,} output tokens and their prompts, {scenes.lade(refunds)} refunded"
    if name in (cast.greedy.name, cast.thrifty.name):
        return "slashed for serving another model, after what it had earned"
    if name == cast.curator.name:
        return "its share as curator, and the challenger's fee for two cheats found"
    if name in (cast.maker.name, cast.oem.name):
        return "its share of the split pools"
    return "its tokens, and its reward as a juror"


async def linger(t: Theatre) -> None:
    """KEEP=1: the network comes back up and stays until Ctrl-C."""
    for n, host in enumerate(t.cast.hosts):
        await t.raise_node(host, f"0.2{n}", f"0.6{n}")

    async def ready() -> bool:
        return all([await t.linked(host, 2) for host in t.cast.hosts])

    await t.screen.until("the nodes come back", ready)
    show = t.screen.console.print
    show(f"\n[bold]Up and running.[/] Status page {t.http}/   chain {t.chain_url}   logs {t.folder}")
    show("\n[dim]# with curl[/]")
    body = '{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}' % scenes.CHAT
    show(
        f"curl -N {t.http}/v1/chat/completions -H 'authorization: Bearer {t.api_key}' \\", markup=False, soft_wrap=True
    )
    show(f"  -H 'content-type: application/json' -d '{body}'", markup=False, soft_wrap=True)
    show("\n[dim]# with the openai package[/]")
    show(f'client = openai.OpenAI(base_url="{t.http}/v1", api_key="{t.api_key}")', markup=False, soft_wrap=True)
    show("\nCtrl-C ends it and cleans up.")
    await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="lading_demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything up at the end, and say where")
    keep = parser.parse_args().keep
    screen = Screen()
    try:
        asyncio.run(supervised(screen, keep))
    except (Missed, Fallen, LadingError) as error:
        screen.failed.append(str(error))
        screen.console.print(f"\n[bold red]stopped[/]  {error}", soft_wrap=True)
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.console.print("\nStopped; nothing is left running.")
        return 130
    return verdict(screen)


async def supervised(screen: Screen, keep: bool) -> None:
    """SIGTERM unwinds like Ctrl-C does."""
    playing = asyncio.ensure_future(play(screen, keep))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    await playing


def verdict(screen: Screen) -> int:
    for title, seconds in screen.times:
        screen.console.print(f"[dim]{seconds:6.1f} s  {title}[/]")
    if screen.failed:
        screen.console.print(f"\n[bold red]{len(screen.failed)} points did not hold:[/]")
        for text in screen.failed:
            screen.console.print(f"  ✗ {text}", soft_wrap=True)
        screen.console.print(f"Logs: {FOLDER}", soft_wrap=True)
        return 1
    screen.console.print(f"\n[bold green]Every point held[/], in {screen.elapsed:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
