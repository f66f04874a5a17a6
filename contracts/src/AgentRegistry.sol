// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";

/// @title Lineage of agents and the split tables agreed for them
/// @notice Holds no money. Nothing in it can be changed once written.
contract AgentRegistry is IAgentRegistry {
    uint256 public constant MAX_DEPTH = 8;
    uint256 public constant MAX_LINEAGE_BPS = 5_000;
    uint256 public constant MAX_PARTIES = 16;
    uint256 public constant WHOLE_BPS = 10_000;
    uint8 private constant LAST_ROLE = 4;

    mapping(bytes32 agent => Agent) private _agents;
    mapping(bytes32 id => Terms) private _terms;

    /// @inheritdoc IAgentRegistry
    function register(bytes32 agent, bytes32 parent, uint16 royaltyBps) external {
        require(agent != 0, ZeroAgent());
        require(_agents[agent].owner == address(0), AlreadyRegistered(agent));
        require(royaltyBps <= MAX_LINEAGE_BPS, RoyaltyTooHigh(royaltyBps));
        uint8 depth = 0;
        uint256 ancestorBps = 0;
        if (parent != 0) {
            Agent storage above = _agents[parent];
            require(above.owner != address(0), UnknownAgent(parent));
            require(above.depth < MAX_DEPTH, LineageTooDeep(parent));
            depth = above.depth + 1;
            ancestorBps = uint256(above.ancestorBps) + above.royaltyBps;
            require(ancestorBps <= MAX_LINEAGE_BPS, RoyaltyTooHigh(ancestorBps));
        }
        _agents[agent] = Agent(msg.sender, royaltyBps, uint16(ancestorBps), depth, uint40(block.timestamp), parent);
        emit AgentRegistered(agent, msg.sender, parent, royaltyBps);
    }

    /// @inheritdoc IAgentRegistry
    function agreeTerms(bytes32 agent, Party[] calldata parties) external returns (bytes32 id) {
        require(_agents[agent].owner != address(0), UnknownAgent(agent));
        require(_agents[agent].owner == msg.sender, NotOwner(msg.sender));
        require(parties.length != 0 && parties.length <= MAX_PARTIES, BadPartyCount(parties.length));
        id = keccak256(abi.encode(agent, parties));
        if (_terms[id].royaltyBps != 0) return id;
        uint256 royaltyBps = _sumOfShares(parties);
        _checkAncestors(agent, parties);
        _terms[id] = Terms(uint16(royaltyBps), uint8(parties.length), uint40(block.timestamp), agent);
        emit TermsAgreed(id, agent, parties);
    }

    /// @inheritdoc IAgentRegistry
    function agents(bytes32 agent)
        external
        view
        returns (address owner, bytes32 parent, uint16 royaltyBps, uint8 depth, uint40 registeredAt)
    {
        Agent storage a = _agents[agent];
        return (a.owner, a.parent, a.royaltyBps, a.depth, a.registeredAt);
    }

    /// @inheritdoc IAgentRegistry
    function terms(bytes32 id) external view returns (bytes32 agent, uint16 royaltyBps, uint8 count, uint40 agreedAt) {
        Terms storage t = _terms[id];
        return (t.agent, t.royaltyBps, t.count, t.agreedAt);
    }

    /// @inheritdoc IAgentRegistry
    function termsId(bytes32 agent, Party[] calldata parties) external pure returns (bytes32) {
        return keccak256(abi.encode(agent, parties));
    }

    function _sumOfShares(Party[] calldata parties) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < parties.length; ++i) {
            Party calldata p = parties[i];
            require(p.payee != address(0) && p.role != 0 && p.role <= LAST_ROLE && p.bps != 0, BadParty(i));
            for (uint256 j = 0; j < i; ++j) {
                require(parties[j].payee != p.payee || parties[j].role != p.role, DuplicateParty(i));
            }
            sum += p.bps;
        }
        require(sum < WHOLE_BPS, SharesTooHigh(sum));
    }

    /// @dev Walks up the lineage (at most eight steps). What an owner of several ancestors asks adds up.
    function _checkAncestors(bytes32 agent, Party[] calldata parties) private view {
        address[MAX_DEPTH] memory owners;
        uint256[MAX_DEPTH] memory asked;
        uint256 known = 0;
        bytes32 ancestor = _agents[agent].parent;
        while (ancestor != 0) {
            Agent storage a = _agents[ancestor];
            uint256 i = 0;
            while (i < known && owners[i] != a.owner) ++i;
            if (i == known) owners[known++] = a.owner;
            asked[i] += a.royaltyBps;
            uint256 offered = 0;
            for (uint256 p = 0; p < parties.length; ++p) {
                if (parties[p].payee == a.owner) offered += parties[p].bps;
            }
            require(offered >= asked[i], AncestorUnderpaid(ancestor, asked[i], offered));
            ancestor = a.parent;
        }
    }
}
