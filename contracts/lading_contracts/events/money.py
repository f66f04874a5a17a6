"""Of the coin, of Settlement and of Staking. Amounts are wei, moments Unix seconds."""

from lading_contracts.events.base import Event
from lading_protocol.ids import Address, Digest, TermsId, Wei

# --- AICoin ---


class Transfer(Event, frozen=True):
    from_: Address
    to: Address
    value: Wei


class Approval(Event, frozen=True):
    owner: Address
    spender: Address
    value: Wei


class AuthorizationUsed(Event, frozen=True):
    """As in ERC-3009."""

    authorizer: Address
    nonce: Digest


class AuthorizationCanceled(Event, frozen=True):
    authorizer: Address
    nonce: Digest


# --- Settlement ---


class Deposited(Event, frozen=True):
    payer: Address
    from_: Address
    amount: Wei


class Authorized(Event, frozen=True):
    payer: Address
    key: Address
    cap: Wei
    expiry: int


class Revoked(Event, frozen=True):
    payer: Address
    key: Address


class ExitRequested(Event, frozen=True):
    """`amount` zero: the exit was called off."""

    payer: Address
    amount: Wei
    exit_at: int


class Exited(Event, frozen=True):
    payer: Address
    amount: Wei


class Locked(Event, frozen=True):
    """`locked` is the channel's new total."""

    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    locked: Wei


class Redeemed(Event, frozen=True):
    """One per batch; `rows` vouchers moved something."""

    host: Address
    terms: TermsId
    epoch: int
    host_amount: Wei
    royalty: Wei
    rows: int


class CloseStarted(Event, frozen=True):
    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    closes_at: int


class Closed(Event, frozen=True):
    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    payer: Address
    returned: Wei


class Claimed(Event, frozen=True):
    terms: TermsId
    payee: Address
    k: int
    amount: Wei


class PayoutSet(Event, frozen=True):
    host: Address
    payout: Address


class Withdrawn(Event, frozen=True):
    host: Address
    payout: Address
    amount: Wei


# --- Staking ---


class Staked(Event, frozen=True):
    """`stake` is the operator's new total."""

    operator: Address
    owner: Address
    amount: Wei
    stake: Wei


class UnstakeRequested(Event, frozen=True):
    operator: Address
    amount: Wei
    unlock_at: int


class Unstaked(Event, frozen=True):
    operator: Address
    owner: Address
    amount: Wei


class Slashed(Event, frozen=True):
    """`amount` left the operator; `burnt` of it was destroyed, the court distributes the rest."""

    operator: Address
    amount: Wei
    burnt: Wei


class Jailed(Event, frozen=True):
    operator: Address
    until: int


class Activated(Event, frozen=True):
    operator: Address


class Deactivated(Event, frozen=True):
    operator: Address


# --- Payments: both courts, both auctions, leases ---


class Unpaid(Event, frozen=True):
    """The coin refused to pay `payee`: the amount waits until it is collected."""

    payee: Address
    amount: Wei


class UnpaidCollected(Event, frozen=True):
    """What waited for `payee` went to `to`."""

    payee: Address
    to: Address
    amount: Wei
