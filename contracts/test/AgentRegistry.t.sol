// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {Kit} from "./Kit.sol";

contract AgentRegistryTest is Kit {
    bytes32 private constant CHILD = keccak256("child");

    function setUp() public {
        deployAll();
    }

    function _one(address payee, uint16 bps) private pure returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](1);
        parties[0] = IAgentRegistry.Party(payee, 1, bps);
    }

    function _refuse(bytes memory reason, bytes32 agent, IAgentRegistry.Party[] memory parties) private {
        vm.expectRevert(reason);
        registry.agreeTerms(agent, parties);
    }

    function test_register_once_under_a_known_parent() public {
        registry.register(CHILD, AGENT, 200);
        (address owner, bytes32 parent, uint16 bps, uint8 depth, uint40 since) = registry.agents(CHILD);
        vm.assertEq(owner, address(this), "owner");
        vm.assertEq(parent, AGENT, "parent");
        eq(bps, 200, "royalty");
        eq(depth, 1, "depth");
        eq(since, vm.getBlockTimestamp(), "time");
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AlreadyRegistered.selector, CHILD));
        registry.register(CHILD, 0, 0);
        vm.expectRevert(IAgentRegistry.ZeroAgent.selector);
        registry.register(0, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.UnknownAgent.selector, keccak256("x")));
        registry.register(keccak256("y"), keccak256("x"), 0);
    }

    function test_depth_and_royalties_of_a_lineage_are_limited() public {
        bytes32 above = AGENT;
        for (uint256 i = 1; i <= 8; ++i) {
            registry.register(bytes32(i), above, 0);
            above = bytes32(i);
        }
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.LineageTooDeep.selector, above));
        registry.register(bytes32(uint256(9)), above, 0);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.RoyaltyTooHigh.selector, 5_001));
        registry.register(bytes32(uint256(10)), 0, 5_001);
        registry.register(bytes32(uint256(11)), AGENT, 4_501);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.RoyaltyTooHigh.selector, 5_001));
        registry.register(bytes32(uint256(12)), bytes32(uint256(11)), 0);
    }

    function test_terms_are_content_addressed_and_idempotent() public {
        vm.assertEq(terms, keccak256(abi.encode(AGENT, table())), "id");
        vm.assertEq(terms, registry.termsId(AGENT, table()), "view");
        (bytes32 agent, uint16 bps, uint8 count, uint40 since) = registry.terms(terms);
        vm.assertEq(agent, AGENT, "agent");
        eq(bps, 1_800, "bps");
        eq(count, 3, "count");
        skip(100);
        vm.prank(MAKER);
        vm.assertEq(registry.agreeTerms(AGENT, table()), terms, "same id");
        (,,, uint40 later) = registry.terms(terms);
        eq(later, since, "untouched");
    }

    function test_only_the_owner_agrees_terms() public {
        _refuse(abi.encodeWithSelector(IAgentRegistry.NotOwner.selector, address(this)), AGENT, table());
        _refuse(abi.encodeWithSelector(IAgentRegistry.UnknownAgent.selector, CHILD), CHILD, table());
    }

    function test_bad_tables_are_refused() public {
        registry.register(CHILD, 0, 0);
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadPartyCount.selector, 0), CHILD, new IAgentRegistry.Party[](0));
        _refuse(
            abi.encodeWithSelector(IAgentRegistry.BadPartyCount.selector, 17), CHILD, new IAgentRegistry.Party[](17)
        );
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 0), CHILD, _one(address(0), 1));
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 0), CHILD, _one(MAKER, 0));
        _refuse(abi.encodeWithSelector(IAgentRegistry.SharesTooHigh.selector, 10_000), CHILD, _one(MAKER, 10_000));
        IAgentRegistry.Party[] memory parties = table();
        parties[2].role = 5;
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 2), CHILD, parties);
        parties[2] = IAgentRegistry.Party(MAKER, 1, 7);
        _refuse(abi.encodeWithSelector(IAgentRegistry.DuplicateParty.selector, 2), CHILD, parties);
        parties[2].role = 4;
        registry.agreeTerms(CHILD, parties);
        // Two makers are no duplicate: only payee and role together are.
        parties[2] = IAgentRegistry.Party(CURATOR, 1, 7);
        registry.agreeTerms(CHILD, parties);
    }

    function test_ancestors_get_at_least_what_they_ask_and_an_owner_of_two_gets_both() public {
        bytes32 grandchild = keccak256("grandchild");
        vm.prank(MAKER);
        registry.register(CHILD, AGENT, 300);
        registry.register(grandchild, CHILD, 0);
        bytes memory reason = abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 800, 799);
        _refuse(reason, grandchild, _one(MAKER, 799));
        registry.agreeTerms(grandchild, _one(MAKER, 800));
        // In two roles together is enough as well.
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 500);
        parties[1] = IAgentRegistry.Party(MAKER, 2, 300);
        registry.agreeTerms(grandchild, parties);
        reason = abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, CHILD, 300, 0);
        _refuse(reason, grandchild, _one(OEM, 5_000));
    }
}
