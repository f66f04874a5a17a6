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

    /// @notice `depth` counts the ancestors; `ancestorBps` is what they ask for together.
    struct Agent {
        address owner;
        uint16 royaltyBps;
        uint16 ancestorBps;
        uint8 depth;
        uint40 registeredAt;
        bytes32 parent;
    }

    /// @notice `royaltyBps` is the sum over the parties; the host keeps the rest. `count` parties.
    struct Terms {
        uint16 royaltyBps;
        uint8 count;
        uint40 agreedAt;
        bytes32 agent;
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
    /// @notice Only the owner of the agent agrees its terms.
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

    event AgentRegistered(bytes32 indexed agent, address indexed owner, bytes32 indexed parent, uint16 royaltyBps);
    event TermsAgreed(bytes32 indexed id, bytes32 indexed agent, Party[] parties);

    /// @notice Records the caller as owner of `agent`. `royaltyBps` is what every later descendant must give the caller.
    /// @param parent zero, or an agent registered before: hence no cycles.
    function register(bytes32 agent, bytes32 parent, uint16 royaltyBps) external;

    /// @notice Agrees a split table and returns its id; the same table again changes nothing and returns the same id.
    /// An owner of several ancestors must get the sum of what they ask.
    function agreeTerms(bytes32 agent, Party[] calldata parties) external returns (bytes32 id);

    /// @notice Zeroes for an agent that nobody registered.
    function agents(bytes32 agent)
        external
        view
        returns (address owner, bytes32 parent, uint16 royaltyBps, uint8 depth, uint40 registeredAt);

    /// @notice Zeroes for terms that nobody agreed. A known table has royaltyBps >= 1.
    function terms(bytes32 id) external view returns (bytes32 agent, uint16 royaltyBps, uint8 count, uint40 agreedAt);

    /// @notice The id that a table has or would have: keccak256(abi.encode(agent, parties)).
    function termsId(bytes32 agent, Party[] calldata parties) external pure returns (bytes32);
}
