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
    "TooLate": ("The deadline has passed", "Look at what comes next: that step is open to anyone."),
    "BadConsent": ("The key did not consent", "Have the key sign its consent for exactly this address, on this chain."),
    "NotOwner": ("This account is not the owner", "Send it from the owner's account."),
    "BadParams": (
        "The parameters contradict each other, or leave the bounds that deployment fixed",
        "Correct the parameters; the cooldown of stakes must outlast the oldest receipt and the longest dispute.",
    ),
    "BadReveal": ("The opening does not match what was sealed, or nothing was", "Open exactly what was sealed."),
    "ShortTransfer": ("Fewer coins came than were sent: this coin takes a fee", "Use a coin that moves what is asked."),
    "PullInPull": ("The coin called back while it was being paid", "Use a coin that calls nobody."),
    "NothingUnpaid": ("Nothing waits for this account", "There is nothing to do."),
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
    "ERC3009InvalidSignature": ("The holder did not sign this authorization", "Sign it with the account that pays."),
    "ERC3009InvalidAuthorizationTime": ("The authorization is not valid now", "Sign a new one for the present time."),
    "ERC3009UsedAuthorization": ("The authorization was used or cancelled", "Sign a new one with another nonce."),
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
    "NoConsent": (
        "A party of the table did not consent (counted from 0)",
        "Have it sign (lading agent consent), or set a policy (lading agent policy).",
    ),
    "ConsentExpired": ("The consents were for use before that second", "Have the parties sign again."),
    "BadConsentCount": ("There must be one consent for each party, or none", "Update the program that sent this."),
    "NoticeTooShort": ("A sunset must be announced ahead", "Name that second or a later one."),
    "AgentSunset": ("The agent has sunset: no terms, no descendants, no successor any more", "Publish a new agent."),
    "BadSuccessor": (
        "The successor is the agent itself or its predecessor, has another owner, or is older",
        "Name a later agent of the same owner.",
    ),
    "SunsetFixed": (
        "The sunset has come, or an auction or a condemnation set it",
        "It can be neither moved nor called off; agree other terms.",
    ),
    "NotAdoptable": ("The agent has a parent already, or is not younger than that one", "There is nothing to do."),
    "UnknownRole": ("There is no such role", "Roles are maker, oem, weaver and curator."),
    "NotAuctions": ("Only the share auctions may do this", "Open an auction instead."),
    "NothingToCondemn": ("The table pays all ancestors what they ask", "There is nothing to condemn."),
    # Settlement
    "DelayTooLong": ("The delays keep money from its owner for more than 90 days", "Choose shorter delays."),
    "OverFree": ("The free balance is too small", "Deposit more, or name a smaller amount."),
    "BadGrant": (
        "The payer did not sign this session grant, or not with its present nonce",
        "Have the payer sign one with the nonce that the contract names.",
    ),
    "TermsClosed": (
        "Nobody agreed these terms, or they have sunset: nothing more is locked under them",
        "Use the agent's present terms; what is locked already stays redeemable.",
    ),
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
    "NotCourt": ("Only the court may do this", "There is nothing to do."),
    "OverStake": ("That is more than the stake", "Name a smaller amount."),
    "NothingUnbonding": ("Nothing is on its way out", "Request it first."),
    "DisputeOpen": ("A dispute about this operator is open", "Wait for the ruling."),
    "NotActive": ("The operator is not active: too little stake, or jailed", "Add stake, or wait for the jail to end."),
    "CheckpointUnorderedInsertion": ("The chain's clock went backwards", "This chain cannot be used."),
    # both courts
    "BadReceipt": (
        "The host it names did not sign this receipt for this court",
        "Check the chain and the court's address.",
    ),
    "NotAnchored": (
        "The host did not anchor this root, or the path does not lead from the receipt to it",
        "Check the root, the index and the path against the anchored receipts.",
    ),
    "ReceiptTooOld": ("The receipt is too old for a dispute", "Open disputes sooner."),
    "NothingAtStake": ("The host has nothing at stake", "There is nothing to win here."),
    "AlreadyOpened": ("You disputed this attempt already, or its host was convicted of it", "Follow that dispute."),
    "WrongPhase": ("The dispute is not in the phase for this", "Look at its phase and deadlines."),
    "NoSeat": ("This account has no unused seat in this round", "Only drawn jurors vote, once."),
    "MayNotAppeal": (
        "Only the side that lost and jurors whom the ruling outvoted may appeal, twice in all",
        "Nothing to do: the ruling stands.",
    ),
    "NoSurety": (
        "The juror's surety is smaller than that",
        "Lodge more for it (lading stake lodge), or wait until its open disputes are over.",
    ),
    "NotYours": (
        "Only who owns an operator, the first to stake for it, has a surety of it",
        "Stake for the operator first, or send it from its owner's account.",
    ),
    "NotContestable": (
        "The agent has a parent already, is not younger than the one claimed, or this contest is open or decided",
        "Look at the agent's lineage and at the contest.",
    ),
    "NoAnswerDue": ("The contest waits for no answer", "Look at its phase and deadlines."),
    # Parameters and the timelock
    "NotGovernor": ("Only the timelock writes parameters", "Schedule the change with the timelock."),
    "UnknownVersion": ("No such version of the parameters was written", "Versions count from 0."),
    "AccessControlUnauthorizedAccount": (
        "This account lacks the role for this",
        "Send it from the governor's account.",
    ),
    "AccessControlBadConfirmation": ("A role is renounced by its holder only", "Send it from that account."),
    "TimelockInsufficientDelay": ("The delay is shorter than the timelock's", "Name at least the shortest delay."),
    "TimelockInvalidOperationLength": ("The lists of the batch differ in length", "Give as many of each."),
    "TimelockUnauthorizedCaller": ("Only the timelock itself may do this", "Schedule it as an operation."),
    "TimelockUnexecutedPredecessor": ("Another operation comes first", "Execute that one before."),
    "TimelockUnexpectedOperationState": (
        "The operation is not in the state for this",
        "It is scheduled once, and executed once after its delay: look at its state.",
    ),
    "FailedCall": ("The call that the timelock made failed", "Check what it calls, and with what."),
    # auctions and the offer book
    "BadEpochs": ("An epoch is between three seconds and a year", "Choose another length."),
    "AlreadyOpen": ("The agent has an auction for this epoch", "Follow that one, or take another epoch."),
    "BadAuction": (
        "Table, role, seats and reserve make no table, whoever wins",
        "Seats are 1 to 8; base table and all seats together must leave something to the host.",
    ),
    "WrongAuction": ("The auction is not open, or began with another table", "Give the table it was opened with."),
    "BidTaken": ("This account has a bid there, or is a party already", "One bid for each account."),
    "OverReserve": ("The bid passes the reserve, or is zero", "Bid between 1 and the reserve."),
    "NoSuchSlot": ("There are only so many slots, counted from 0", "Name one of them."),
    "NothingToSettle": ("No bid was sealed there, or it is settled already", "There is nothing to do."),
    "BadOffer": ("The host did not sign this offer for this chain", "Sign it for the settlement contract."),
    "OfferExpired": ("The offer has expired", "Sign a new one."),
    "BelowFloor": ("The host has voided offers below this sequence", "Sign a new one with a higher sequence."),
    "FloorNotRaised": ("A floor only rises", "Name a higher one."),
    # Leases
    "BadLease": (
        "The lease has no slots, no time or no price, too many slots, or starts before it must be accepted",
        "Correct the request.",
    ),
    "WrongState": ("The lease is not in the state for this", "Look at its state."),
    "NotParty": ("This account is not the one for this", "The tenant, the host or the host's owner does it."),
    "BadServed": (
        "The tenant did not sign these seconds, the lease has not run them, or they are paid",
        "Collect what the tenant signed last.",
    ),
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
