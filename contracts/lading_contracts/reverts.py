"""Why a contract refused, in words. Pure: revert bytes in, a `Reverted` with one clear sentence out.

The words for each custom error live here and nowhere else; a test checks that no error of the contracts lacks them.
"""

from typing import Any

from lading_contracts import abi
from lading_contracts.errors import BadAbi, Reverted
from lading_protocol.ids import short

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflowed",
    0x12: "division by zero",
    0x32: "index out of range",
}

# name: (what and why, what to do)
WORDS: dict[str, tuple[str, str]] = {
    # amounts, addresses, times: several contracts
    "ZeroAmount": ("An amount of zero does nothing", "Name an amount."),
    "ZeroAddress": ("The zero address can neither pay nor be paid", "Name an address."),
    "TooEarly": ("It is too early", "Try again after that second."),
    "TooEarlyBlock": ("It is too early", "Try again after that block."),
    "TooLate": ("The deadline has passed", "The next step of the dispute is open to anyone."),
    "BadConsent": ("The key did not consent", "Have the key sign its consent for exactly this address, on this chain."),
    "NotOwner": ("This account is not the owner", "Send it from the owner's account."),
    "BadParams": ("The parameters contradict each other", "Correct the deployment parameters."),
    # AICoin and OpenZeppelin's ERC-20
    "SupplyTooLarge": ("The supply does not fit 96 bits", "Choose a smaller supply."),
    "ERC20InsufficientBalance": ("The account holds too few coins", "Get coins first, or name a smaller amount."),
    "ERC20InsufficientAllowance": ("The allowance is too small", "Approve the contract for this amount first."),
    "ERC20InvalidApprover": ("The zero address cannot approve", "Send it from a real account."),
    "ERC20InvalidReceiver": ("The zero address cannot receive coins", "Name a receiver; to destroy coins, burn them."),
    "ERC20InvalidSender": ("The zero address cannot send coins", "Send it from a real account."),
    "ERC20InvalidSpender": ("The zero address cannot spend", "Name the contract that shall spend."),
    "ERC2612ExpiredSignature": ("The permit has expired", "Sign a new one with a later deadline."),
    "ERC2612InvalidSigner": ("The permit was signed by somebody else", "Sign it with the account that pays."),
    "InvalidAccountNonce": ("The permit was used already", "Sign a new one with the next nonce."),
    "ECDSAInvalidSignature": ("The signature is malformed", "Sign again."),
    "ECDSAInvalidSignatureLength": ("A signature has 65 bytes", "Sign again."),
    "ECDSAInvalidSignatureS": (
        "The signature is malleable (its s is in the upper half)",
        "Sign again with a current wallet.",
    ),
    "SafeCastOverflowedUintDowncast": ("The number is too large", "Name a smaller one."),
    "InvalidShortString": ("A name is malformed", "Use up to 31 characters."),
    "StringTooLong": ("A name is too long", "Use up to 31 characters."),
    "SafeERC20FailedOperation": ("The coin refused the transfer", "Check balance and allowance."),
    # AgentRegistry
    "ZeroAgent": ("The digest zero names no agent", "Give the manifest's digest."),
    "AlreadyRegistered": ("This agent is registered already", "If the owner is not you, change the manifest's nonce."),
    "UnknownAgent": ("No agent has this digest", "Register the agent (or its parent) first."),
    "LineageTooDeep": ("A lineage has at most eight generations of ancestors", "Register under an older ancestor."),
    "RoyaltyTooHigh": ("The royalties asked along the lineage pass half of the revenue", "Ask for less."),
    "BadPartyCount": ("A split table has 1 to 16 parties", "Correct the table."),
    "BadParty": ("A party has no address, an unknown role or a zero share", "Correct that line of the table."),
    "DuplicateParty": ("The same payee stands twice in the same role", "Merge the two lines."),
    "SharesTooHigh": ("The parties together leave nothing to the host", "Keep the sum of shares below 10,000."),
    "AncestorUnderpaid": ("An ancestor's owner gets less than its lineage asks", "Give it at least what is wanted."),
    # Settlement
    "DelayTooLong": ("The delays keep money from its owner for more than 90 days", "Choose shorter delays."),
    "OverFree": ("The free balance is too small", "Deposit more, or name a smaller amount."),
    "KeyTaken": ("The session key belongs to another payer", "Make a new session key."),
    "NotPayer": ("Only the payer behind the key may do this", "Send it from the payer's account."),
    "NoExit": ("No withdrawal is under way", "Request one first."),
    "RaggedRows": ("The rows are not 76 bytes each", "Update the program that packed them."),
    "UnknownTerms": ("Nobody agreed these terms", "Check the terms id and the registry's address."),
    "NoProgress": (
        "No row moved anything: all were stale, unfunded or badly signed",
        "If they were landed before, nothing is lost; else check the payer's deposit and the signatures.",
    ),
    "NotClosable": (
        "There is no such channel, or it is closing or closed already",
        "Check signer, host, terms and epoch.",
    ),
    "NotClosing": ("The channel is not closing", "Start the close first."),
    "WrongParty": ("The table has no such party, or it is another payee", "Check the index and the table."),
    "NotPayout": ("Only the current payout address may name the next one", "Send it from the payout address."),
    "NothingDue": ("There is nothing to pay", "Try again when more has been redeemed."),
    # Staking
    "CooldownTooLong": ("The cooldown is longer than a year", "Choose a shorter one."),
    "NotCourt": ("Only the audit court may do this", "There is nothing to do."),
    "OverStake": ("That is more than the stake", "Name a smaller amount."),
    "NothingUnbonding": ("Nothing is on its way out", "Request it first."),
    "DisputeOpen": ("A dispute about this operator is open", "Wait for the ruling."),
    "NotActive": ("The operator is not active: too little stake, or jailed", "Add stake, or wait for the jail to end."),
    # AuditCourt
    "BadReceipt": (
        "The host it names did not sign this receipt for this court",
        "Check the chain and the court's address.",
    ),
    "ReceiptTooOld": ("The receipt is too old for a dispute", "Open disputes sooner."),
    "NothingAtStake": ("The host has nothing at stake", "There is nothing to win here."),
    "AlreadyOpened": ("You disputed this attempt already, or its host was convicted of it", "Follow that dispute."),
    "WrongPhase": ("The dispute is not in the phase for this", "Look at its phase and deadlines."),
    "NoSeat": ("This account has no unused seat in this round", "Only drawn jurors vote, once."),
    "BadReveal": ("The reveal does not open the commitment", "Reveal exactly what was committed."),
    "MayNotAppeal": ("Only the side that lost may appeal, twice in all", "Nothing to do: the ruling stands."),
}


def explain(data: bytes, *, tx: bytes | None = None) -> Reverted:
    """Decode revert data: a custom error of ours, Error(string), Panic(uint256), or nothing at all."""
    selector, body = data[:4], data[4:]
    try:
        if selector == _ERROR_STRING:
            (text,) = abi.decode(("string",), body)
            return Reverted(f"The contract refused: {text}.", name="Error", arguments=(text,), tx=tx)
        if selector == _PANIC:
            (code,) = abi.decode(("uint256",), body)
            return Reverted(
                f"The contract failed: {_PANICS.get(code, hex(code))}.", name="Panic", arguments=(code,), tx=tx
            )
        item = abi.all_errors().get(selector)
        if item is not None:
            return _named(item.name, item.names, abi.decode(item.inputs, body), tx)
    except BadAbi:
        pass
    if not data:
        return Reverted("The contract refused without giving a reason (or ran out of gas).", name="", tx=tx)
    return Reverted(f"The contract refused with an unknown error 0x{selector.hex()}.", name=selector.hex(), tx=tx)


def _named(name: str, names: tuple[str, ...], values: tuple[Any, ...], tx: bytes | None) -> Reverted:
    shown = ", ".join(f"{label or 'value'} {_show(value)}" for label, value in zip(names, values, strict=True))
    what, todo = WORDS.get(name, (f"The contract refused: {name}", None))
    message = f"{what} ({shown})." if shown else f"{what}."
    return Reverted(message, name=name, arguments=values, tx=tx, hint=todo)


def _show(value: Any) -> str:
    return short(value) if isinstance(value, bytes) else str(value)
