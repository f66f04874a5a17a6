"""Deploying: planned addresses, a coin that exists, and everything that may come between."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from factories import key
from lading_contracts import abi
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import BadDeployment, NotIncluded
from lading_contracts.fake import FakeChain
from lading_contracts.port import Signer, TxReceipt
from lading_contracts.timelock import EXECUTOR
from lading_contracts.transactions import created_address
from lading_net.clock import run_virtual
from lading_protocol.ids import ZERO_ADDRESS, Address, Wei

DEPLOYER, GOVERNOR = key("deployer"), key("governor")
NOW = 1_800_000_123


def chain() -> FakeChain:
    return FakeChain(lambda: float(NOW))


class Meddled(FakeChain):
    """Calls `meddle` with the number of each transaction before it is sent."""

    def __init__(self, meddle: Callable[[int], Any]) -> None:
        super().__init__(lambda: float(NOW))
        self._meddle = meddle
        self._count = 0

    async def send(self, signer: Signer, to: Address | None, data: bytes, value: int = 0) -> TxReceipt:
        self._count += 1
        if (work := self._meddle(self._count)) is not None:
            await work
        return await super().send(signer, to, data, value)


def test_every_contract_is_where_the_others_were_told() -> None:
    async def main() -> None:
        here = chain()
        record = await deploy(here, DEPLOYER, msgspec.structs.replace(Parameters(), governor=GOVERNOR.address))
        assert list(record.names()) == [created_address(DEPLOYER.address, n) for n in range(12)]
        contracts = Contracts(here, record)
        await contracts.check()
        assert await contracts.registry.auctions() == record.share_auctions
        assert await contracts.registry.lineage_court() == record.lineage_court
        assert await contracts.staking.court() == record.court
        assert await contracts.parameters.governor() == record.timelock
        assert await contracts.timelock.may_propose(GOVERNOR.address)
        assert not await contracts.timelock.may_propose(DEPLOYER.address)
        assert await contracts.timelock.has_role(EXECUTOR, ZERO_ADDRESS)
        assert await contracts.timelock.min_delay() == 2 * 86_400
        assert (await contracts.parameters.court()) == (0, Parameters().court)
        assert (await contracts.parameters.market()) == (0, Parameters().market)
        assert (record.block, record.decimals, record.symbol) == (1, 18, "LADE")

    run_virtual(main())


@pytest.mark.parametrize("parameters", [Parameters(), Parameters.devnet()], ids=["real", "devnet"])
def test_a_stake_cannot_leave_before_its_receipts_are_judged(parameters: Parameters) -> None:
    """Also when the governor doubles every window, and through all appeals."""

    async def main() -> None:
        here = chain()
        contracts = Contracts(here, await deploy(here, DEPLOYER, parameters))
        asked = contracts.parameters
        longest, oldest = await asked.longest_dispute(), await asked.oldest_receipt()
        court = parameters.court
        assert longest == 3 * 2 * (court.commit_window + court.reveal_window + court.appeal_window)
        assert await contracts.staking.cooldown() > longest + oldest

    run_virtual(main())


def test_epochs_begin_at_a_whole_one_unless_told() -> None:
    async def main() -> None:
        for given, expected in ((None, NOW - NOW % 60), (NOW + 5, NOW + 5)):
            here = chain()
            wanted = msgspec.structs.replace(Parameters.devnet(), epoch_genesis=given)
            contracts = Contracts(here, await deploy(here, DEPLOYER, wanted))
            for auctions in (contracts.share_auctions, contracts.promotion_auctions):
                assert (await auctions.calendar()).genesis == expected

    run_virtual(main())


async def a_coin(here: FakeChain, supply: int = 10**30) -> Address:
    data = abi.load("AICoin").creation("Dollar", "USD", supply, key("issuer").address)
    made = (await here.send(key("issuer"), None, data)).created
    assert made is not None
    return made


def test_a_coin_that_exists_is_taken() -> None:
    async def main() -> None:
        here = chain()
        coin = await a_coin(here, 10**28)
        await here.send(DEPLOYER, GOVERNOR.address, b"", 1)
        record = await deploy(here, DEPLOYER, msgspec.structs.replace(Parameters(), coin=coin))
        assert (record.coin, record.symbol, record.decimals) == (coin, "USD", 18)
        # One transaction before it, and an empty one that told the nonce.
        rest = [where for where in record.names() if where != coin]
        assert rest == [created_address(DEPLOYER.address, n) for n in range(2, 13)]
        contracts = Contracts(here, record)
        for part in (contracts.settlement, contracts.staking, contracts.court, contracts.leases):
            assert await part.coin() == coin
        assert record.block == 4

    run_virtual(main())


def test_what_is_no_coin_or_another_unit_is_refused_before_anything_is_created() -> None:
    async def main() -> None:
        here = chain()
        for wrong, words in ((key("nobody").address, "no ERC-20"), (await a_coin(here, 10**12), "less USD")):
            with pytest.raises(BadDeployment, match=words):
                await deploy(here, DEPLOYER, msgspec.structs.replace(Parameters(), coin=wrong))
        head = await here.block()
        assert head is not None
        assert head.number == 1

    run_virtual(main())


def test_amounts_follow_the_coins_decimals() -> None:
    six = Parameters().in_units(6)
    assert (six.min_stake, six.court.bond) == (1_000 * 10**6, 100 * 10**6)
    assert six.market.promotion_reserve == 100 * 10**6
    assert Parameters().in_units(18) == Parameters()
    assert Parameters(min_stake=Wei(10**18)).in_units(24).min_stake == 10**24


def test_another_transaction_in_between_is_noticed_at_once() -> None:
    async def main() -> None:
        here = Meddled(lambda n: FakeChain.send(here, DEPLOYER, GOVERNOR.address, b"") if n == 5 else None)
        with pytest.raises(BadDeployment, match="Parameters came to be at") as caught:
            await deploy(here, DEPLOYER)
        assert "nonce 5" in caught.value.message
        assert "fresh key" in str(caught.value)
        head = await here.block()
        assert head is not None
        assert head.number == 6

    run_virtual(main())


def test_a_deployment_that_stops_half_way_says_where() -> None:
    async def fail() -> None:
        raise NotIncluded("No block took it.", tx=b"x" * 32)

    async def main() -> None:
        here = Meddled(lambda n: fail() if n == 4 else None)
        with pytest.raises(
            BadDeployment, match=r"stopped at TimelockController \(nonce 3\), after AgentRegistry, Settl"
        ):
            await deploy(here, DEPLOYER)
        bad = msgspec.structs.replace(Parameters(), cooldown=5 * 86_400)
        with pytest.raises(BadDeployment, match=r"stopped at AuditCourt .*cooldown|stopped at AuditCourt") as caught:
            await deploy(chain(), DEPLOYER, bad)
        assert "leave the bounds" in caught.value.message

    run_virtual(main())
