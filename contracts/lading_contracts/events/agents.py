"""Of the registry, of the parameters and of their timelock. Moments are Unix seconds."""

from lading_contracts.events.base import Event
from lading_contracts.parameters import CourtParams, MarketParams
from lading_contracts.registry import Party
from lading_protocol.ids import Address, AgentId, Digest, TermsId, Wei

# --- AgentRegistry ---


class AgentRegistered(Event, frozen=True):
    agent: AgentId
    owner: Address
    parent: AgentId
    royalty_bps: int


class TermsAgreed(Event, frozen=True):
    id: TermsId
    agent: AgentId
    parties: tuple[Party, ...]


class Superseded(Event, frozen=True):
    """`successor` is the next version of `agent`, by the same owner."""

    agent: AgentId
    successor: AgentId


class AgentSunsetSet(Event, frozen=True):
    """From `moment` on the agent gets no new terms and no descendants; 0: called off."""

    agent: AgentId
    moment: int


class TermsSunsetSet(Event, frozen=True):
    """From `moment` on nothing is locked under these terms; 0: called off."""

    id: TermsId
    moment: int


class PolicySet(Event, frozen=True):
    """`party` accepts any table that gives it at least `min_bps` in the role; 0: no longer."""

    party: Address
    role: int
    min_bps: int


class Adopted(Event, frozen=True):
    """The lineage court put `agent`, which had hidden it, under `parent`."""

    agent: AgentId
    parent: AgentId


class Condemned(Event, frozen=True):
    """The table pays an ancestor too little since its agent was adopted: it sunsets at `moment`."""

    id: TermsId
    moment: int


# --- Parameters and its timelock ---


class CourtParamsSet(Event, frozen=True):
    version: int
    params: CourtParams


class MarketParamsSet(Event, frozen=True):
    version: int
    params: MarketParams


class CallScheduled(Event, frozen=True):
    """`delay` seconds from this block on it may be executed."""

    id: Digest
    index: int
    target: Address
    value: Wei
    data: bytes
    predecessor: Digest
    delay: int


class CallExecuted(Event, frozen=True):
    id: Digest
    index: int
    target: Address
    value: Wei
    data: bytes


class CallSalt(Event, frozen=True):
    id: Digest
    salt: Digest


class Cancelled(Event, frozen=True):
    """The operation will not be executed."""

    id: Digest


class MinDelayChange(Event, frozen=True):
    old_duration: int
    new_duration: int


class RoleGranted(Event, frozen=True):
    role: Digest
    account: Address
    sender: Address


class RoleRevoked(Event, frozen=True):
    role: Digest
    account: Address
    sender: Address


class RoleAdminChanged(Event, frozen=True):
    role: Digest
    previous_admin_role: Digest
    new_admin_role: Digest
