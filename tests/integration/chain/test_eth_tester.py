"""The adapter and the contracts on a chain that is not ours: eth-tester, asked through web3's own provider."""

from ast import literal_eval
from typing import Any

from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.exceptions import TransactionFailed
from web3 import EthereumTesterProvider, Web3

from integration.chain.journeys import ACTORS, settle_a_job
from integration.chain.served import QUICK, run
from lading_contracts.deploy import deploy
from lading_contracts.deployment import Contracts
from lading_contracts.rpc import RpcChain
from lading_contracts.transports import Answer
from lading_protocol.ids import to_hex
from property.chain_kit import FAUCET, PARAMETERS, furnish, key


class OtherChain:
    """eth-tester as a transport. Web3's middleware answers in Python values; a socket would carry hex text."""

    def __init__(self) -> None:
        tester = EthereumTester(PyEVMBackend())  # type: ignore[no-untyped-call]
        rich = tester.get_accounts()[0]
        tester.send_transaction({"from": rich, "to": to_hex(FAUCET.address), "value": 10**23, "gas": 21_000})
        self.web3 = Web3(EthereumTesterProvider(tester))
        self.chain_id = self.web3.eth.chain_id

    async def request(self, method: str, params: list[Any]) -> Answer:
        ask = self.web3.provider.request_func(self.web3, self.web3.middleware_onion)
        try:
            answer = ask(method, params)  # type: ignore[arg-type]
        except TransactionFailed as failed:
            data = literal_eval(str(failed).removeprefix("execution reverted: "))
            return Answer(None, {"code": 3, "message": "execution reverted", "data": to_hex(data)})
        return Answer(_plain(answer.get("result")), _plain(answer.get("error")))

    async def close(self) -> None:
        pass


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return hex(value)
    if isinstance(value, bytes):
        return "0x" + bytes(value).hex()
    if hasattr(value, "items"):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value]


def test_money_moves_the_same_on_eth_tester() -> None:
    async def main() -> None:
        other = OtherChain()
        chain = RpcChain(other, other.chain_id, QUICK)
        contracts = Contracts(chain, await deploy(chain, FAUCET, PARAMETERS))
        await contracts.check()
        await furnish(contracts, {name: key(name) for name in ACTORS}, coins=1_000)
        await settle_a_job(contracts)
        await chain.close()

    run(main())
