// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {Tables} from "./Tables.sol";

/// @title Who owns an agent, what it derives from, and what its ancestors are owed
/// @notice Every edge leads to an agent that was registered earlier, so there are no cycles: `register` asks that the parent exists,
/// `adopt` that it is older by a second at least. Owners never change.
abstract contract Lineage is IAgentRegistry {
    /// @inheritdoc IAgentRegistry
    uint32 public constant NOTICE = 7 days;
    uint256 internal constant MAX_DEPTH = 8;
    uint256 internal constant MAX_LINEAGE_BPS = 5_000;
    /// @notice How many ancestors are asked for what they want. Eight generations under an adopted root, and the nine it came under:
    /// only an agent below two adoptions can have more.
    uint256 internal constant MAX_ANCESTORS = 17;

    /// @dev What a table owes: `owners` of ancestors that ask for something, each once, `asked` by each in all. `theirs` has one bit
    /// for each party that is one of them. `short` is the first ancestor, from below, whose owner is offered less than it and those
    /// below it ask.
    struct Owed {
        uint256 count;
        address[MAX_ANCESTORS] owners;
        uint256[MAX_ANCESTORS] asked;
        uint256 theirs;
        bytes32 short;
        uint256 wanted;
        uint256 offered;
    }

    /// @inheritdoc IAgentRegistry
    address public immutable lineageCourt;

    mapping(bytes32 agent => Agent) internal _agents;
    mapping(bytes32 agent => bytes32) private _successors;

    constructor(address lineageCourt_) {
        lineageCourt = lineageCourt_;
    }

    /// @inheritdoc IAgentRegistry
    function register(bytes32 agent, bytes32 parent, uint16 royaltyBps) external {
        require(agent != 0, ZeroAgent());
        require(_agents[agent].owner == address(0), AlreadyRegistered(agent));
        require(royaltyBps <= MAX_LINEAGE_BPS, RoyaltyTooHigh(royaltyBps));
        uint8 depth = 0;
        if (parent != 0) {
            Agent storage above = _known(parent);
            require(!_hasSunset(above), AgentSunset(parent));
            require(above.depth < MAX_DEPTH, LineageTooDeep(parent));
            depth = above.depth + 1;
            uint256 asked = _askedFrom(parent);
            require(asked <= MAX_LINEAGE_BPS, RoyaltyTooHigh(asked));
        }
        _agents[agent] = Agent(msg.sender, royaltyBps, depth, uint32(block.timestamp), 0, parent);
        emit AgentRegistered(agent, msg.sender, parent, royaltyBps);
    }

    /// @inheritdoc IAgentRegistry
    function supersede(bytes32 agent, bytes32 successor) external {
        Agent storage before = _owned(agent, msg.sender);
        Agent storage next = _agents[successor];
        require(next.owner == msg.sender && next.registeredAt >= before.registeredAt, BadSuccessor(successor));
        require(!_hasSunset(next), AgentSunset(successor));
        // Only agents of the same second could name each other in a circle.
        bytes32 later = successor;
        while (later != 0 && _agents[later].registeredAt == before.registeredAt) {
            require(later != agent, BadSuccessor(successor));
            later = _successors[later];
        }
        _successors[agent] = successor;
        emit Superseded(agent, successor);
    }

    /// @inheritdoc IAgentRegistry
    function sunsetAgent(bytes32 agent, uint32 moment) external {
        Agent storage a = _owned(agent, msg.sender);
        require(!_hasSunset(a), AgentSunset(agent));
        _requireNotice(moment);
        a.sunsetAt = moment;
        emit AgentSunsetSet(agent, moment);
    }

    /// @inheritdoc IAgentRegistry
    function adopt(bytes32 agent, bytes32 parent) external {
        require(msg.sender == lineageCourt, NotCourt(msg.sender));
        Agent storage child = _known(agent);
        Agent storage above = _known(parent);
        require(child.parent == 0 && above.registeredAt < child.registeredAt, NotAdoptable(agent));
        child.parent = parent;
        child.depth = uint8(Math.min(uint256(above.depth) + 1, MAX_ANCESTORS));
        emit Adopted(agent, parent);
    }

    /// @inheritdoc IAgentRegistry
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
        )
    {
        successor = _successors[agent];
        Agent storage a = _agents[agent];
        (owner, parent, royaltyBps, depth) = (a.owner, a.parent, a.royaltyBps, a.depth);
        (registeredAt, sunsetAt) = (a.registeredAt, a.sunsetAt);
    }

    function _known(bytes32 agent) internal view returns (Agent storage a) {
        a = _agents[agent];
        require(a.owner != address(0), UnknownAgent(agent));
    }

    function _owned(bytes32 agent, address caller) internal view returns (Agent storage a) {
        a = _known(agent);
        require(a.owner == caller, NotOwner(caller));
    }

    function _hasSunset(Agent storage a) internal view returns (bool) {
        uint256 moment = a.sunsetAt;
        return moment != 0 && block.timestamp >= moment;
    }

    function _requireNotice(uint32 moment) internal view {
        require(moment == 0 || moment >= block.timestamp + NOTICE, NoticeTooShort(block.timestamp + NOTICE));
    }

    /// @dev What the ancestors of a table's agent are owed, and whether `parties` pay it. They count from the nearest, up to
    /// `MAX_LINEAGE_BPS`: an adoption adds to what is owed, never takes from those who were there, never asks the impossible.
    function _owedBy(bytes32 agent, Party[] calldata parties) internal view returns (Owed memory owed) {
        uint256 left = MAX_LINEAGE_BPS;
        bytes32 ancestor = _parentOf(agent);
        for (uint256 step = 0; step < MAX_ANCESTORS && ancestor != 0 && left != 0; ++step) {
            Agent storage a = _agents[ancestor];
            uint256 asked = Math.min(a.royaltyBps, left);
            if (asked != 0) {
                left -= asked;
                _add(owed, ancestor, asked, parties);
            }
            ancestor = _parentOf(ancestor);
        }
    }

    /// @dev What an owner of several ancestors asks adds up.
    function _add(Owed memory owed, bytes32 ancestor, uint256 asked, Party[] calldata parties) private view {
        address owner = _agents[ancestor].owner;
        uint256 i = 0;
        while (i < owed.count && owed.owners[i] != owner) ++i;
        if (i == owed.count) owed.owners[owed.count++] = owner;
        asked += owed.asked[i];
        owed.asked[i] = asked;
        (uint256 offered, uint256 places) = Tables.sharesOf(parties, owner);
        owed.theirs |= places;
        if (offered < asked && owed.short == 0) (owed.short, owed.wanted, owed.offered) = (ancestor, asked, offered);
    }

    function _askedFrom(bytes32 agent) private view returns (uint256 asked) {
        for (uint256 step = 0; step < MAX_ANCESTORS && agent != 0; ++step) {
            asked += _agents[agent].royaltyBps;
            agent = _parentOf(agent);
        }
    }

    /// @dev A root is known by its depth, in the slot that is read anyway.
    function _parentOf(bytes32 agent) private view returns (bytes32) {
        Agent storage a = _agents[agent];
        return a.depth == 0 ? bytes32(0) : a.parent;
    }
}
