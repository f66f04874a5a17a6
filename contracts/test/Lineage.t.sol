// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {RegistryKit} from "./RegistryKit.sol";

/// @notice Agents: registration, versions, their end, adoption.
contract LineageTest is RegistryKit {
    function setUp() public {
        deployRegistry();
        register(MAKER, AGENT, 0, 500);
        skip(1);
    }

    function _depth(bytes32 agent) private view returns (uint8 depth) {
        (,,, depth,,,) = registry.agents(agent);
    }

    function _parent(bytes32 agent) private view returns (bytes32 parent) {
        (, parent,,,,,) = registry.agents(agent);
    }

    /// @dev Agents first, first + 1, ... of this contract, each under the one before.
    function _chain(uint256 first, uint256 count, bytes32 above, uint16 bps) private returns (bytes32 last) {
        for (uint256 i = 0; i < count; ++i) {
            registry.register(bytes32(first + i), above, bps);
            above = bytes32(first + i);
        }
        return above;
    }

    function test_register_once_under_a_known_parent() public {
        registry.register(CHILD, AGENT, 200);
        (address owner, bytes32 parent, uint16 bps, uint8 depth, uint32 since, uint32 sunset, bytes32 successor) =
            registry.agents(CHILD);
        vm.assertEq(owner, address(this), "owner");
        vm.assertEq(parent, AGENT, "parent");
        eq(bps, 200, "royalty");
        eq(depth, 1, "depth");
        eq(since, time(), "time");
        eq(sunset, 0, "no sunset");
        vm.assertEq(successor, 0, "no successor");
        expect(IAgentRegistry.AlreadyRegistered.selector, CHILD);
        registry.register(CHILD, 0, 0);
        vm.expectRevert(IAgentRegistry.ZeroAgent.selector);
        registry.register(0, 0, 0);
        expect(IAgentRegistry.UnknownAgent.selector, keccak256("x"));
        registry.register(keccak256("y"), keccak256("x"), 0);
    }

    function test_depth_and_royalties_of_a_lineage_are_limited() public {
        bytes32 last = _chain(1, 8, AGENT, 0);
        expect(IAgentRegistry.LineageTooDeep.selector, last);
        registry.register(bytes32(uint256(9)), last, 0);
        expect(IAgentRegistry.RoyaltyTooHigh.selector, 5_001);
        registry.register(bytes32(uint256(10)), 0, 5_001);
        registry.register(bytes32(uint256(11)), AGENT, 4_501);
        expect(IAgentRegistry.RoyaltyTooHigh.selector, 5_001);
        registry.register(bytes32(uint256(12)), bytes32(uint256(11)), 0);
    }

    // ---- versions

    function _supersede(bytes32 agent, bytes32 successor) private {
        vm.prank(MAKER);
        registry.supersede(agent, successor);
    }

    function test_the_owner_names_the_next_version_and_may_correct_it() public {
        register(MAKER, CHILD, 0, 0);
        register(MAKER, GRANDCHILD, 0, 0);
        _supersede(AGENT, CHILD);
        _supersede(AGENT, GRANDCHILD);
        (,,,,,, bytes32 successor) = registry.agents(AGENT);
        vm.assertEq(successor, GRANDCHILD, "corrected");
        expect(IAgentRegistry.NotOwner.selector, address(this));
        registry.supersede(AGENT, CHILD);
        expect(IAgentRegistry.UnknownAgent.selector, keccak256("x"));
        registry.supersede(keccak256("x"), CHILD);
    }

    function test_a_successor_is_another_agent_of_the_same_owner_not_older() public {
        expect(IAgentRegistry.BadSuccessor.selector, AGENT);
        _supersede(AGENT, AGENT);
        register(oem, CHILD, 0, 0);
        expect(IAgentRegistry.BadSuccessor.selector, CHILD);
        _supersede(AGENT, CHILD);
        expect(IAgentRegistry.BadSuccessor.selector, bytes32(0));
        _supersede(AGENT, 0);
        register(MAKER, GRANDCHILD, 0, 0);
        expect(IAgentRegistry.BadSuccessor.selector, AGENT);
        _supersede(GRANDCHILD, AGENT);
    }

    function test_versions_of_one_second_never_go_in_a_circle() public {
        for (uint256 i = 1; i <= 3; ++i) {
            register(MAKER, bytes32(i), 0, 0);
        }
        _supersede(bytes32(uint256(1)), bytes32(uint256(2)));
        _supersede(bytes32(uint256(2)), bytes32(uint256(3)));
        expect(IAgentRegistry.BadSuccessor.selector, bytes32(uint256(1)));
        _supersede(bytes32(uint256(3)), bytes32(uint256(1)));
    }

    // ---- the end of an agent

    function test_an_agent_that_has_sunset_gets_no_terms_no_descendants_and_is_no_successor() public {
        register(MAKER, CHILD, 0, 0);
        uint32 moment = time() + NOTICE;
        vm.prank(MAKER);
        registry.sunsetAgent(CHILD, moment);
        vm.warp(moment - 1);
        bytes32 id = agree(MAKER, CHILD, one(MAKER, 7));
        vm.warp(moment);
        bytes memory reason = abi.encodeWithSelector(IAgentRegistry.AgentSunset.selector, CHILD);
        vm.expectRevert(reason);
        agree(MAKER, CHILD, one(MAKER, 7));
        vm.expectRevert(reason);
        registry.checkTable(CHILD, MAKER, one(MAKER, 8), 0, none());
        vm.expectRevert(reason);
        registry.register(GRANDCHILD, CHILD, 0);
        vm.expectRevert(reason);
        _supersede(AGENT, CHILD);
        vm.expectRevert(reason);
        vm.prank(MAKER);
        registry.sunsetAgent(CHILD, 0);
        vm.assertTrue(registry.isOpen(id), "terms agreed before live on");
    }

    function test_a_sunset_of_an_agent_needs_notice_and_can_be_called_off() public {
        expect(IAgentRegistry.NoticeTooShort.selector, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, time() + NOTICE - 1);
        expect(IAgentRegistry.NotOwner.selector, address(this));
        registry.sunsetAgent(AGENT, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, 0);
        skip(NOTICE);
        registry.register(CHILD, AGENT, 0);
        // Once announced for later, nobody brings it nearer than the notice.
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, time() + 2 * NOTICE);
        skip(NOTICE + 1);
        expect(IAgentRegistry.NoticeTooShort.selector, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, time() + NOTICE - 1);
    }

    // ---- adoption

    function test_the_court_puts_a_younger_root_under_its_parent() public {
        registry.register(CHILD, 0, 0);
        expect(IAgentRegistry.NotCourt.selector, address(this));
        registry.adopt(CHILD, AGENT);
        adopt(CHILD, AGENT);
        vm.assertEq(_parent(CHILD), AGENT, "parent");
        eq(_depth(CHILD), 1, "depth");
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 500, 0));
        registry.agreeTerms(CHILD, one(address(this), 7), 0, none());
    }

    function test_only_roots_are_adopted_and_only_by_older_agents() public {
        registry.register(CHILD, 0, 0);
        registry.register(GRANDCHILD, 0, 0);
        bytes memory reason = abi.encodeWithSelector(IAgentRegistry.NotAdoptable.selector, CHILD);
        vm.expectRevert(reason);
        adopt(CHILD, GRANDCHILD);
        vm.expectRevert(reason);
        adopt(CHILD, CHILD);
        expect(IAgentRegistry.NotAdoptable.selector, AGENT);
        adopt(AGENT, CHILD);
        adopt(CHILD, AGENT);
        vm.expectRevert(reason);
        adopt(CHILD, AGENT);
        expect(IAgentRegistry.UnknownAgent.selector, keccak256("x"));
        adopt(GRANDCHILD, keccak256("x"));
        expect(IAgentRegistry.UnknownAgent.selector, keccak256("x"));
        adopt(keccak256("x"), AGENT);
    }

    function test_eight_generations_below_an_adopted_agent_owe_its_whole_new_lineage() public {
        bytes32 above = _chain(1, 8, AGENT, 10);
        skip(1);
        bytes32 last = _chain(100, 9, 0, 0);
        agree(address(this), last, one(address(this), 1));
        adopt(bytes32(uint256(100)), above);
        eq(_depth(bytes32(uint256(100))), 9, "deeper than one can register");
        expect(IAgentRegistry.LineageTooDeep.selector, bytes32(uint256(100)));
        registry.register(GRANDCHILD, bytes32(uint256(100)), 0);
        // Seventeen ancestors: 8 x 10 to this contract, and 500 to the maker at the very top.
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 500, 0));
        registry.agreeTerms(last, one(address(this), 80), 0, none());
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(address(this), 1, 80);
        parties[1] = IAgentRegistry.Party(MAKER, 1, 500);
        registry.agreeTerms(last, parties, 0, none());
        registry.condemn(last, one(address(this), 1));
    }

    function test_an_adoption_never_asks_for_more_than_half_and_takes_from_nobody_who_was_there() public {
        register(oem, CHILD, 0, 4_800);
        register(curator, GRANDCHILD, CHILD, 0);
        adopt(CHILD, AGENT);
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(oem, 1, 4_800);
        parties[1] = IAgentRegistry.Party(MAKER, 1, 199);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 200, 199));
        agree(curator, GRANDCHILD, parties);
        parties[1].bps = 200;
        agree(curator, GRANDCHILD, parties);
        // Above half of the revenue nobody may join.
        expect(IAgentRegistry.RoyaltyTooHigh.selector, 5_300);
        registry.register(keccak256("x"), CHILD, 0);
    }
}
