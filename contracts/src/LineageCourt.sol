// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Coins} from "./Coins.sol";
import {Committee} from "./Committee.sol";
import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {ILineageCourt} from "./interfaces/ILineageCourt.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Disputes about hidden parents
/// @notice Immutable. The accused is the agent's owner; nothing of it is slashed, but its bond and its place in the lineage are
/// at stake. A contest has a round of its own without a committee, which holds the challenger's bond; the answer arms the next.
contract LineageCourt is Committee, ILineageCourt {
    using Coins for IERC20;

    struct Contest {
        bytes32 agent;
        bytes32 parent;
        uint40 answerBy;
    }

    IAgentRegistry public immutable registry;
    /// @inheritdoc ILineageCourt
    mapping(bytes32 id => Contest) public contests;

    constructor(IERC20 coin_, IStaking staking_, IAgentRegistry registry_, IParameters parameters_)
        Committee(coin_, staking_, parameters_)
    {
        require(registry_.lineageCourt() == address(this), BadParams());
        registry = registry_;
    }

    /// @inheritdoc ILineageCourt
    function contest(bytes32 agent, bytes32 parent, bytes32 evidence) external returns (bytes32 id) {
        (address owner, bytes32 above,,, uint32 since,,) = registry.agents(agent);
        (address parentOwner,,,, uint32 parentSince,,) = registry.agents(parent);
        require(parentOwner == msg.sender, NotOwner(msg.sender));
        require(owner != address(0) && above == 0 && parentSince < since, NotContestable(agent));
        id = contestId(agent, parent, msg.sender);
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.None || d.phase == Phase.Void, NotContestable(agent));
        IParameters.CourtParams memory p = _begin(d);
        d.accused = owner;
        d.challenger = msg.sender;
        d.subject = keccak256(abi.encode(agent, parent, evidence));
        d.phase = Phase.Asked;
        _pledge(id, d, GUILTY, p.bond);
        uint40 answerBy = uint40(block.timestamp) + p.answerWindow;
        contests[id] = Contest(agent, parent, answerBy);
        emit Contested(id, agent, parent, msg.sender, evidence, answerBy);
        coin.pull(msg.sender, p.bond);
    }

    /// @inheritdoc ILineageCourt
    function answer(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Asked, NoAnswerDue(id));
        require(msg.sender == d.accused, NotOwner(msg.sender));
        uint40 answerBy = contests[id].answerBy;
        require(block.timestamp < answerBy, TooLate(answerBy));
        IParameters.CourtParams memory p = _paramsOf(d);
        // From now on a committee decides about the challenger's bond too; if it finds no quorum, both go back.
        _rounds[id][d.round].ruled = true;
        _pledge(id, d, HONEST, p.bond);
        _arm(d, p);
        emit Answered(id, msg.sender, d.drawBlock);
        coin.pull(msg.sender, p.bond);
    }

    /// @inheritdoc ILineageCourt
    function uphold(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Asked, NoAnswerDue(id));
        uint40 answerBy = contests[id].answerBy;
        require(block.timestamp >= answerBy, TooEarly(answerBy));
        d.phase = Phase.Closed;
        d.verdict = GUILTY;
        _adopt(id);
        _pay(id, d.challenger, _rounds[id][d.round].bond);
    }

    /// @inheritdoc ILineageCourt
    function contestId(bytes32 agent, bytes32 parent, address challenger) public pure returns (bytes32) {
        return keccak256(abi.encode(agent, parent, challenger));
    }

    /// @inheritdoc Committee
    function _accusedOwner(address accused) internal pure override returns (address) {
        return accused;
    }

    /// @inheritdoc Committee
    function _release(Dispute storage d) internal override {}

    /// @inheritdoc Committee
    function _carryOut(bytes32 id, Dispute storage d) internal override returns (uint256 reward) {
        if (d.verdict == GUILTY) _adopt(id);
        else emit Dismissed(id, contests[id].agent, contests[id].parent);
        return 0;
    }

    /// @dev Bonds are paid after it: whoever sends too little gas for the registry has none left for them, and changes nothing.
    function _adopt(bytes32 id) private {
        Contest storage c = contests[id];
        try registry.adopt(c.agent, c.parent) {
            emit Upheld(id, c.agent, c.parent);
        } catch {
            emit Moot(id, c.agent, c.parent);
        }
    }
}
