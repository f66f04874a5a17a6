"""Every error of the chain package, with the words that a person will read.

Adapters translate foreign exceptions into these. `Reverted` carries the contract's own error by name, so that a caller
can act on it (`error.name == "StaleVoucher"`) without reading text.
"""

from typing import Any

from lading_protocol.errors import LadingError


class ChainError(LadingError):
    """Something about the chain failed."""

    code = "chain_error"


class ChainUnreachable(ChainError):
    """No answer from the chain's RPC endpoint. Nothing was lost: try again later."""

    code = "chain_unreachable"
    hint = "Check the RPC URL and that the chain is running; work goes on and settles later."


class WrongChain(ChainError):
    """The endpoint serves another chain than the settings name, so nothing is signed or believed."""

    code = "wrong_chain"
    hint = "Correct the RPC URL or the chain id in the settings."


class RpcFailed(ChainError):
    """The endpoint answered with an error that is not a revert."""

    code = "chain_rpc_failed"
    hint = "Read the endpoint's own words above; many public endpoints limit rates and ranges."


class BadAnswer(RpcFailed):
    """The endpoint's answer has not the form that the method promises."""

    code = "chain_bad_answer"
    hint = "Check that the URL is the RPC endpoint of an EVM chain, or use another endpoint."


class TooWide(RpcFailed):
    """The endpoint does not answer a question about events over so many blocks, or with so many results."""

    code = "chain_range_too_wide"


class TxRefused(RpcFailed):
    """The endpoint did not take the transaction at all, so it did not happen and will not."""

    code = "transaction_refused"


class Reverted(ChainError):
    """A contract refused. `name` is the contract's error, `args_` its arguments as decoded (bytes, int)."""

    code = "reverted"
    hint = "Nothing was changed and nothing was paid but gas."

    def __init__(
        self,
        message: str,
        *,
        name: str,
        arguments: tuple[Any, ...] = (),
        tx: bytes | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.arguments = arguments
        self.tx = tx


class NotIncluded(ChainError):
    """A transaction was, or may have been, broadcast; its fate is open: it may still be included. `tx` is its hash."""

    code = "not_included"
    hint = "Look the transaction up before sending again; it may still be taken."

    def __init__(self, message: str, *, tx: bytes) -> None:
        super().__init__(message)
        self.tx = tx


class Replaced(ChainError):
    """Another transaction of the same key took the nonce: this one did not happen and cannot happen any more."""

    code = "transaction_replaced"
    hint = "It may be sent again. Two programs that use one key do this to each other."


class NoFunds(ChainError):
    """The sending account cannot pay for gas (or for the value it sends)."""

    code = "no_gas_funds"
    hint = "Send the chain's own currency to this account; on a development chain use the faucet."


class BadDeployment(ChainError):
    """The deployment record is missing, malformed, or does not match what is on the chain."""

    code = "bad_deployment"
    hint = "Fetch the record again from whoever deployed the contracts, or deploy your own."


class NoPermits(ChainError):
    """The payment coin takes no signatures in place of transactions."""

    code = "no_permits"
    hint = "Approve the contract and deposit in two transactions instead."


class BadAbi(ChainError):
    """Bytes from the chain do not decode, or the compiled contracts are not part of this installation."""

    code = "bad_abi"
    hint = "The contract at this address is another version: check the deployment record and update Lading."


class BadKeystore(ChainError):
    """A key file or key variable cannot be read, or the password is wrong."""

    code = "bad_keystore"
    hint = "Check the path and the password. Without the password a key file cannot be recovered."


class ChainFolderBusy(ChainError):
    """Another process already runs the embedded chain on this data folder."""

    code = "chain_folder_busy"
    hint = "Use the running chain's URL, or stop that process, or choose another folder."


class PortInUse(ChainError):
    """The embedded chain cannot listen where it was told to."""

    code = "port_in_use"
    hint = "Choose another port, or 0 for a free one."


class ChainMissing(ChainError):
    """A program or package that runs a local chain is not installed."""

    code = "chain_missing"
    hint = "Install it with: pip install 'lading[chain]'"
