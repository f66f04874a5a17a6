// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AgentRegistry} from "../src/AgentRegistry.sol";
import {LineageCourt} from "../src/LineageCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice A maker whose agent PARENT came first, and somebody who registered CHILD as a root afterwards.
abstract contract LineageKit is CourtKit {
    bytes32 internal constant PARENT = keccak256("parent");
    bytes32 internal constant CHILD = keccak256("child");
    uint256 internal constant DERIVER_KEY = 0xDE;
    address internal deriver = vm.addr(DERIVER_KEY);
    LineageCourt internal lineage;

    function sitting() internal view override returns (ICommittee) {
        return lineage;
    }

    function deployLineage(uint256 jurors) internal {
        deployAll();
        address expected = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        registry = new AgentRegistry(AUCTIONS, expected);
        lineage = new LineageCourt(coin, staking, registry, parameters);
        enrol(jurors);
        bankroll(MAKER);
        bankroll(deriver);
        registerAs(MAKER, PARENT, 0);
        skip(1);
        registerAs(deriver, CHILD, 0);
        skip(1);
    }

    function bankroll(address who) internal {
        coin.transfer(who, BANKROLL);
        vm.prank(who);
        coin.approve(address(lineage), type(uint256).max);
    }

    function registerAs(address owner, bytes32 agent, bytes32 parent) internal {
        vm.prank(owner);
        registry.register(agent, parent, 500);
    }

    function contestAs(address owner, bytes32 agent, bytes32 parent) internal returns (bytes32) {
        vm.prank(owner);
        return lineage.contest(agent, parent, EVIDENCE);
    }

    function contested() internal returns (bytes32) {
        return contestAs(MAKER, CHILD, PARENT);
    }

    function answered() internal returns (bytes32 id) {
        id = contested();
        vm.prank(deriver);
        lineage.answer(id);
    }

    function parentOf(bytes32 agent) internal view returns (bytes32 parent) {
        (, parent,,,,,) = registry.agents(agent);
    }

    function bond() internal pure returns (uint256) {
        return courtParams().bond;
    }
}
