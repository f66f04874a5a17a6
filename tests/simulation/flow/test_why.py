"""A node asks its coordinator why it got no work, over the link that it holds, and the command shows the answer."""

from pathlib import Path

from lading_node.cli_why import told
from lading_node.status import coin
from lading_node.why import ask_all
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price, format_amount
from simulation.flow.answers import question
from simulation.flow.world import COORDINATOR, PRICE, Market, Setting, play


def asked(wei: int) -> str:
    return f"{format_amount(2 * wei, 18)} LADE"


def test_a_host_that_asks_too_much_reads_so(tmp_path: Path) -> None:
    async def story(market: Market) -> None:
        dear = await market.join("cedar", price=Price(Wei(PRICE.input * 2), Wei(PRICE.output * 2)))
        await market.open_for_business()
        for _ in range(3):
            answer = await market.consumers["carla"].ask(question(20, 40))
            assert answer.ended is not None, answer.error
        (one,) = await ask_all(dear.node)
        assert (one["coordinator"], one["trouble"]) == ("0x" + COORDINATOR.address.hex(), "")
        (account,) = one["agents"]
        assert (account["jobs"], account["won"]) == (3, 0)
        assert account["reasons"][0]["code"] == "price"
        assert account["reasons"][0]["words"] == "your price was 100 % above that of the host that got the job"
        assert account["price_out"] == str(PRICE.output)
        lines = told({"why_not_earning": [], "coordinators": [one], "coin": coin(dear.node)})
        assert "lost 3 of 3 jobs" in lines[0]
        assert lines[1].startswith("  3 x price: your price was 100 % above")
        assert f"you ask {asked(PRICE.input)} / {asked(PRICE.output)}." in lines[2]

        (busy,) = await ask_all(market.hosts["amber"].node)
        assert busy["agents"][0]["won"] == 3
        assert busy["agents"][0]["reasons"] == []

    play(story, tmp_path, Setting(hosts=("amber",)))


def test_with_no_coordinator_the_command_says_so() -> None:
    assert told({"why_not_earning": [], "coordinators": []}) == [
        "No coordinator is linked, so nobody chose, or passed over, this node."
    ]
    silent = {"coordinator": "0x" + "ab" * 20, "agents": [], "trouble": "it did not answer within 3 s"}
    assert told({"why_not_earning": ["No stake."], "coordinators": [silent]}) == [
        "At this node: No stake.",
        "Coordinator 0xabababab… says nothing: it did not answer within 3 s",
    ]
