// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Lineage of agents and the split tables agreed for them
/// @notice An agent is the sha256 digest of its manifest. A split table (terms) is content addressed: its id is the hash of
/// the agent and the parties, so it can never change, and whoever pays under it knows who gets what.
interface IAgentRegistry {
    /// @notice One line of a split table. Roles: 1 maker, 2 OEM, 3 weaver, 4 curator.
    struct Party {
        address payee;
        uint8 role;
        uint16 bps;
    }

    /// @notice `depth` counts the ancestors as they were when the agent was registered or adopted, and is zero for a root alone;
    /// `sunsetAt` is 0 until a sunset is announced.
    struct Agent {
        address owner;
        uint16 royaltyBps;
        uint8 depth;
        uint32 registeredAt;
        uint32 sunsetAt;
        bytes32 parent;
    }

    /// @notice `royaltyBps` is the sum over the parties; the host keeps the rest. `count` parties. `tag` are 20 bytes of the hash of
    /// the agent (`tagOf`): the whole of it is in the id's preimage, and one slot is what a table may cost. Not of the digest itself,
    /// because anybody may register a digest that begins as another's. `fixedSunset`: the owner can neither move nor call off
    /// the sunset, because an auction or a condemnation set it.
    struct Terms {
        bytes20 tag;
        uint16 royaltyBps;
        uint8 count;
        uint32 agreedAt;
        uint32 sunsetAt;
        bool fixedSunset;
    }

    /// @notice The digest zero names no agent.
    error ZeroAgent();
    /// @notice Somebody registered this digest before. Publishers: check the owner, and change the manifest's nonce if it is not you.
    error AlreadyRegistered(bytes32 agent);
    /// @notice No agent has this digest.
    error UnknownAgent(bytes32 agent);
    /// @notice A lineage has at most eight generations of ancestors.
    error LineageTooDeep(bytes32 parent);
    /// @notice The royalties asked along a lineage may not pass half of the revenue.
    error RoyaltyTooHigh(uint256 bps);
    /// @notice Only the owner of the agent may do this.
    error NotOwner(address caller);
    /// @notice A table has 1 to 16 parties.
    error BadPartyCount(uint256 count);
    /// @notice A party has a zero payee, an unknown role or a zero share.
    error BadParty(uint256 index);
    /// @notice The same payee stands twice in the same role.
    error DuplicateParty(uint256 index);
    /// @notice The parties together must leave something to the host.
    error SharesTooHigh(uint256 bps);
    /// @notice An ancestor's owner gets less than that lineage asks.
    error AncestorUnderpaid(bytes32 ancestor, uint256 wanted, uint256 offered);

    /// @notice The party consents neither by being the caller, nor by what it asks of its descendants, nor by a standing policy, nor
    /// by a good signature of TermsConsent(terms,deadline).
    error NoConsent(uint256 index);
    /// @notice The consents were for use before this second.
    error ConsentExpired(uint256 deadline);
    /// @notice One consent for each party, empty where none is needed; or none at all.
    error BadConsentCount(uint256 count);
    /// @notice A sunset needs notice: not before this second.
    error NoticeTooShort(uint256 earliest);
    /// @notice The agent has sunset: no terms, no descendants, no successor any more.
    error AgentSunset(bytes32 agent);
    /// @notice Nobody agreed these terms for this agent.
    error UnknownTerms(bytes32 terms);
    /// @notice The successor is the agent itself or one of its predecessors, has another owner, or is older.
    error BadSuccessor(bytes32 successor);
    /// @notice The sunset has come, or an auction or a condemnation set it: it can be neither called off nor moved.
    error SunsetFixed(bytes32 terms);
    /// @notice The agent has a parent already, or is not younger than the one it should get.
    error NotAdoptable(bytes32 agent);
    /// @notice Roles are 1 to 4.
    error UnknownRole(uint8 role);
    /// @notice Only the share auctions may agree terms that an auction made.
    error NotAuctions(address caller);
    /// @notice Only the lineage court may put an agent under a parent.
    error NotCourt(address caller);
    /// @notice The table pays all ancestors what they ask: there is nothing to condemn.
    error NothingToCondemn(bytes32 terms);

    event AgentRegistered(bytes32 indexed agent, address indexed owner, bytes32 indexed parent, uint16 royaltyBps);
    event TermsAgreed(bytes32 indexed id, bytes32 indexed agent, Party[] parties);
    /// @notice `successor` is the next version of `agent`, by the same owner.
    event Superseded(bytes32 indexed agent, bytes32 indexed successor);
    /// @notice From `moment` on the agent gets no new terms and no descendants. Zero: called off.
    event AgentSunsetSet(bytes32 indexed agent, uint32 moment);
    /// @notice From `moment` on nothing is locked under these terms. Zero: called off.
    event TermsSunsetSet(bytes32 indexed id, uint32 moment);
    /// @notice `party` accepts any table that gives it at least `minBps` in the role. Zero: no longer.
    event PolicySet(address indexed party, uint8 indexed role, uint16 minBps);
    /// @notice The lineage court put `agent`, which had hidden it, under `parent`.
    event Adopted(bytes32 indexed agent, bytes32 indexed parent);
    /// @notice The table pays an ancestor too little since its agent was adopted: it sunsets at `moment`.
    event Condemned(bytes32 indexed id, uint32 moment);

    /// @notice Records the caller as owner of `agent`. `royaltyBps` is what every later descendant must give the caller: the
    /// caller's standing consent to tables of descendants that do.
    /// @param parent zero, or an agent registered before: hence no cycles.
    function register(bytes32 agent, bytes32 parent, uint16 royaltyBps) external;

    /// @notice Names the next version of the caller's agent, another agent of the caller's, not registered before it. May be
    /// corrected; whoever follows successors comes to an end.
    function supersede(bytes32 agent, bytes32 successor) external;

    /// @notice Announces the agent's end, at least `NOTICE` ahead; zero calls it off until it has come. Only the owner.
    function sunsetAgent(bytes32 agent, uint32 moment) external;

    /// @notice Announces that nothing more is locked under the terms from `moment` on, at least `NOTICE` ahead; zero calls it off (not
    /// for terms of an auction, nor condemned ones). Only the owner of the agent, which is named because terms keep but its tag.
    function sunsetTerms(bytes32 id, bytes32 agent, uint32 moment) external;

    /// @notice The caller's standing consent: any table that gives it at least `minBps` in `role`. Zero ends it.
    function setPolicy(uint8 role, uint16 minBps) external;

    /// @notice Agrees a split table and returns its id; the same table again changes nothing and returns the same id. An owner of
    /// several ancestors must get the sum of what they ask. Every party must consent: by being the caller, as the owner of an
    /// ancestor that gets what it asks, by its policy, or by its signature (64 bytes as in ERC-2098, 65 bytes, or ERC-1271) of
    /// TermsConsent(terms,deadline). What ancestors ask counts from the nearest up to half of the revenue; the rest is not owed.
    /// @param consents one for each party, empty where none is needed; or an empty list
    function agreeTerms(bytes32 agent, Party[] calldata parties, uint40 deadline, bytes[] calldata consents)
        external
        returns (bytes32 id);

    /// @notice For the share auctions, whose winners consented by their bids: agrees `parties` as terms that sunset at `sunsetAt`.
    /// The same table again sunsets at the later of both moments; terms without a sunset stay without.
    function agreeAuctioned(bytes32 agent, Party[] calldata parties, uint32 sunsetAt) external returns (bytes32 id);

    /// @notice For the lineage court: puts a root under `parent`.
    function adopt(bytes32 agent, bytes32 parent) external;

    /// @notice Sunsets, with notice, a table that pays the agent's ancestors too little since it was adopted; anyone may send.
    function condemn(bytes32 agent, Party[] calldata parties) external;

    // ---- views

    /// @notice Reverts as `agreeTerms` by `sender` would, for the auctions to ask before they open. Terms that stand by the consent of
    /// all their parties need no consents again, but must still pay the ancestors.
    function checkTable(
        bytes32 agent,
        address sender,
        Party[] calldata parties,
        uint40 deadline,
        bytes[] calldata consents
    ) external view returns (uint256 royaltyBps);

    /// @notice Zeroes for an agent that nobody registered.
    function agents(bytes32 agent)
        external
        view
        returns (
            address owner,
            bytes32 parent,
            uint16 royaltyBps,
            uint8 depth,
            uint32 registeredAt,
            uint32 sunsetAt,
            bytes32 successor
        );

    /// @notice Zeroes for terms that nobody agreed. A known table has royaltyBps >= 1.
    function terms(bytes32 id)
        external
        view
        returns (bytes20 tag, uint16 royaltyBps, uint8 count, uint32 agreedAt, uint32 sunsetAt);

    /// @notice Whether money may be locked under these terms now: agreed, and not past their sunset.
    function isOpen(bytes32 id) external view returns (bool);

    /// @notice What `party` accepts in `role` without a signature; zero is nothing.
    function policyOf(address party, uint8 role) external view returns (uint16 minBps);

    /// @notice Seconds of notice that a sunset needs.
    function NOTICE() external view returns (uint32);
    function auctions() external view returns (address);
    function lineageCourt() external view returns (address);

    /// @notice What the terms of this agent carry: the first 20 bytes of keccak256(abi.encode(agent)).
    function tagOf(bytes32 agent) external pure returns (bytes20);

    /// @notice The id that a table has or would have: keccak256(abi.encode(agent, parties)).
    function termsId(bytes32 agent, Party[] calldata parties) external pure returns (bytes32);
    function consentDigest(bytes32 id, uint40 deadline) external view returns (bytes32);
}
