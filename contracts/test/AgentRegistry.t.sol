// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {RegistryKit} from "./RegistryKit.sol";

/// @notice Tables: what makes one, who must consent, how it ends.
contract AgentRegistryTest is RegistryKit {
    function setUp() public {
        deployRegistry();
        register(MAKER, AGENT, 0, 500);
    }

    function _id() private view returns (bytes32) {
        return registry.termsId(AGENT, table());
    }

    function _agreed() private returns (bytes32 id) {
        id = _id();
        bytes[] memory consents = signatures(id, FOREVER);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER, consents);
    }

    function _refuse(bytes memory reason, bytes32 agent, IAgentRegistry.Party[] memory parties) private {
        vm.expectRevert(reason);
        registry.checkTable(agent, address(this), parties, 0, none());
        vm.expectRevert(reason);
        registry.agreeTerms(agent, parties, 0, none());
    }

    function test_terms_are_content_addressed_and_idempotent() public {
        bytes32 id = _agreed();
        vm.assertEq(id, keccak256(abi.encode(AGENT, table())), "id");
        (bytes20 tag, uint16 bps, uint8 count, uint32 since, uint32 sunset) = registry.terms(id);
        vm.assertEq(bytes32(tag), bytes32(bytes20(keccak256(abi.encode(AGENT)))), "tag");
        eq(bps, 1_800, "bps");
        eq(count, 3, "count");
        eq(sunset, 0, "no sunset");
        skip(100);
        vm.assertEq(agree(MAKER, AGENT, table()), id, "same id, and no consents needed again");
        (,,, uint32 later,) = registry.terms(id);
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
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 0), CHILD, one(address(0), 1));
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 0), CHILD, one(MAKER, 0));
        _refuse(abi.encodeWithSelector(IAgentRegistry.SharesTooHigh.selector, 10_000), CHILD, one(MAKER, 10_000));
        IAgentRegistry.Party[] memory parties = table();
        parties[2].role = 5;
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 2), CHILD, parties);
        parties[2].role = 0;
        _refuse(abi.encodeWithSelector(IAgentRegistry.BadParty.selector, 2), CHILD, parties);
        parties[2] = IAgentRegistry.Party(MAKER, 1, 7);
        _refuse(abi.encodeWithSelector(IAgentRegistry.DuplicateParty.selector, 2), CHILD, parties);
        // Only payee and role together make a duplicate: neither one payee in two roles, nor two makers.
        for (uint8 i = 0; i < 3; ++i) {
            parties[i] = IAgentRegistry.Party(address(this), i + 1, 10);
        }
        eq(registry.checkTable(CHILD, address(this), parties, 0, none()), 30, "three roles");
        parties[1] = IAgentRegistry.Party(MAKER, 1, 500);
        _refuse(abi.encodeWithSelector(IAgentRegistry.NoConsent.selector, 1), CHILD, parties);
    }

    function test_sixteen_parties_are_the_most() public {
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](17);
        for (uint160 i = 0; i < 17; ++i) {
            parties[i] = IAgentRegistry.Party(address(i + 1), 1, 100);
        }
        expect(IAgentRegistry.BadPartyCount.selector, 17);
        vm.prank(AUCTIONS);
        registry.agreeAuctioned(AGENT, parties, time() + 60);
        assembly ("memory-safe") {
            mstore(parties, 16)
        }
        vm.prank(AUCTIONS);
        (,, uint8 count,,) = registry.terms(registry.agreeAuctioned(AGENT, parties, time() + 60));
        eq(count, 16, "sixteen");
    }

    function test_ancestors_get_at_least_what_they_ask_and_an_owner_of_two_gets_both() public {
        register(MAKER, CHILD, AGENT, 300);
        registry.register(GRANDCHILD, CHILD, 0);
        bytes memory reason = abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 800, 799);
        _refuse(reason, GRANDCHILD, one(MAKER, 799));
        registry.agreeTerms(GRANDCHILD, one(MAKER, 800), 0, none());
        // In two roles together is enough as well, and then the owner consents to both.
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 500);
        parties[1] = IAgentRegistry.Party(MAKER, 2, 300);
        registry.agreeTerms(GRANDCHILD, parties, 0, none());
        reason = abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, CHILD, 300, 0);
        _refuse(reason, GRANDCHILD, one(oem, 5_000));
    }

    // ---- consent

    /// @dev The type string is spelled out here once more: what a wallet shows is what the contract checks.
    function test_the_consent_digest_is_eip_712() public view {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Lading"),
                keccak256("1"),
                block.chainid,
                address(registry)
            )
        );
        bytes32 content =
            keccak256(abi.encode(keccak256("TermsConsent(bytes32 terms,uint40 deadline)"), _id(), uint40(9)));
        bytes32 expected = keccak256(abi.encodePacked(hex"1901", domain, content));
        vm.assertEq(registry.consentDigest(_id(), 9), expected, "digest");
    }

    function test_signatures_consent_each_in_either_form() public {
        eq(registry.checkTable(AGENT, MAKER, table(), FOREVER, signatures(_id(), FOREVER)), 1_800, "checked");
        _agreed();
        vm.assertTrue(registry.isOpen(_id()), "open");
    }

    function test_each_missing_consent_is_named() public {
        bytes[] memory consents = signatures(_id(), FOREVER);
        consents[2] = "";
        expect(IAgentRegistry.NoConsent.selector, 2);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER, consents);
        expect(IAgentRegistry.NoConsent.selector, 1);
        agree(MAKER, AGENT, table());
        expect(IAgentRegistry.BadConsentCount.selector, 2);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER, new bytes[](2));
    }

    function test_consents_end_before_their_deadline() public {
        uint40 deadline = time() + 10;
        bytes[] memory consents = signatures(_id(), deadline);
        vm.warp(deadline);
        expect(IAgentRegistry.ConsentExpired.selector, deadline);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), deadline, consents);
        vm.warp(deadline - 1);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), deadline, consents);
    }

    function test_policies_consent_by_role_and_share() public {
        vm.prank(oem);
        registry.setPolicy(2, 500);
        vm.prank(curator);
        registry.setPolicy(4, 301);
        expect(IAgentRegistry.NoConsent.selector, 2);
        agree(MAKER, AGENT, table());
        vm.prank(curator);
        registry.setPolicy(4, 300);
        agree(MAKER, AGENT, table());
        eq(registry.policyOf(curator, 4), 300, "policy");
        vm.prank(curator);
        registry.setPolicy(4, 0);
        IAgentRegistry.Party[] memory parties = table();
        parties[2].bps = 9;
        expect(IAgentRegistry.NoConsent.selector, 2);
        agree(MAKER, AGENT, parties);
        eq(registry.policyOf(curator, 9), 0, "no such role");
        expect(IAgentRegistry.UnknownRole.selector, uint256(0));
        registry.setPolicy(0, 1);
        expect(IAgentRegistry.UnknownRole.selector, 5);
        registry.setPolicy(5, 1);
    }

    function test_an_expired_signature_does_no_harm_where_a_policy_consents() public {
        vm.prank(oem);
        registry.setPolicy(2, 500);
        vm.prank(curator);
        registry.setPolicy(4, 300);
        bytes[] memory consents = signatures(_id(), time());
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), time(), consents);
    }

    function test_what_an_ancestor_asks_is_its_consent_and_nothing_asked_is_none() public {
        register(oem, CHILD, AGENT, 0);
        register(curator, GRANDCHILD, CHILD, 0);
        IAgentRegistry.Party[] memory parties = one(MAKER, 500);
        eq(registry.checkTable(GRANDCHILD, curator, parties, 0, none()), 500, "what it asks");
        parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(MAKER, 3, 9_000);
        parties[1] = IAgentRegistry.Party(oem, 1, 900);
        expect(IAgentRegistry.NoConsent.selector, 1);
        agree(curator, GRANDCHILD, parties);
    }

    // ---- how terms end

    function test_a_sunset_of_terms_needs_notice_and_can_be_called_off_until_it_comes() public {
        bytes32 id = _agreed();
        expect(IAgentRegistry.NoticeTooShort.selector, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, time() + NOTICE - 1);
        uint32 moment = time() + NOTICE;
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, moment);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, 0);
        eq(sunsetOf(id), 0, "called off");
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, moment);
        vm.warp(moment - 1);
        vm.assertTrue(registry.isOpen(id), "until then");
        vm.warp(moment);
        vm.assertTrue(!registry.isOpen(id), "from then on not");
        expect(IAgentRegistry.SunsetFixed.selector, id);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, 0);
        vm.assertEq(agree(MAKER, AGENT, table()), id, "the same table is the same terms");
        vm.assertTrue(!registry.isOpen(id), "and they stay closed");
    }

    function test_only_the_owner_of_that_agent_sunsets_its_terms() public {
        bytes32 id = _agreed();
        expect(IAgentRegistry.NotOwner.selector, address(this));
        registry.sunsetTerms(id, AGENT, 0);
        register(oem, CHILD, 0, 0);
        expect(IAgentRegistry.UnknownTerms.selector, id);
        vm.prank(oem);
        registry.sunsetTerms(id, CHILD, 0);
        expect(IAgentRegistry.UnknownTerms.selector, bytes32(0));
        vm.prank(MAKER);
        registry.sunsetTerms(0, AGENT, 0);
        // A digest that begins as the agent's, whoever can register it.
        bytes32 twin = bytes32(uint256(AGENT) ^ 1);
        register(oem, twin, 0, 0);
        expect(IAgentRegistry.UnknownTerms.selector, id);
        vm.prank(oem);
        registry.sunsetTerms(id, twin, time() + NOTICE);
    }

    function test_unknown_terms_are_not_open() public view {
        vm.assertTrue(!registry.isOpen(_id()), "never agreed");
    }

    // ---- auctions

    function _auctioned(uint32 sunsetAt) private returns (bytes32) {
        vm.prank(AUCTIONS);
        return registry.agreeAuctioned(AGENT, table(), sunsetAt);
    }

    function test_auctioned_terms_need_no_consents_and_keep_their_sunset() public {
        bytes32 id = _auctioned(time() + 60);
        vm.assertEq(id, _id(), "id");
        eq(sunsetOf(id), time() + 60, "sunset");
        for (uint256 i = 0; i < 2; ++i) {
            expect(IAgentRegistry.SunsetFixed.selector, id);
            vm.prank(MAKER);
            registry.sunsetTerms(id, AGENT, i == 0 ? 0 : time() + NOTICE);
        }
        agree(MAKER, AGENT, table());
        eq(sunsetOf(id), time() + 60, "agreeing changes nothing");
        // The winners of one epoch are no base for the next without their consent.
        expect(IAgentRegistry.NoConsent.selector, 1);
        registry.checkTable(AGENT, MAKER, table(), 0, none());
    }

    function test_only_the_auctions_agree_without_consents() public {
        expect(IAgentRegistry.NotAuctions.selector, MAKER);
        vm.prank(MAKER);
        registry.agreeAuctioned(AGENT, table(), time() + 60);
    }

    function test_the_same_outcome_in_a_later_epoch_opens_the_terms_again() public {
        bytes32 id = _auctioned(time() + 60);
        skip(1_000);
        vm.assertTrue(!registry.isOpen(id), "over");
        _auctioned(time() + 60);
        vm.assertTrue(registry.isOpen(id), "again");
        uint256 last = sunsetOf(id);
        _auctioned(time() + 30);
        eq(sunsetOf(id), last, "never shorter");
    }

    function test_an_auction_never_shortens_ordinary_terms() public {
        bytes32 id = _agreed();
        _auctioned(time() + 60);
        eq(sunsetOf(id), 0, "still for ever");
        uint32 moment = time() + NOTICE;
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, moment);
        _auctioned(time() + 60);
        eq(sunsetOf(id), moment, "not earlier");
        _auctioned(moment + 60);
        eq(sunsetOf(id), moment + 60, "but the epoch has them");
    }

    function test_auctioned_tables_are_checked() public {
        vm.prank(AUCTIONS);
        expect(IAgentRegistry.BadParty.selector, uint256(0));
        registry.agreeAuctioned(AGENT, one(address(0), 1), time() + 60);
        register(oem, CHILD, AGENT, 0);
        vm.prank(AUCTIONS);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 500, 0));
        registry.agreeAuctioned(CHILD, one(oem, 9), time() + 60);
        vm.prank(AUCTIONS);
        expect(IAgentRegistry.UnknownAgent.selector, GRANDCHILD);
        registry.agreeAuctioned(GRANDCHILD, one(oem, 9), time() + 60);
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, time() + NOTICE);
        skip(NOTICE);
        expect(IAgentRegistry.AgentSunset.selector, AGENT);
        _auctioned(time() + 60);
    }

    // ---- condemnation

    function test_a_table_that_stopped_paying_its_ancestors_is_condemned_with_notice() public {
        skip(1);
        register(oem, CHILD, 0, 0);
        bytes32 id = agree(oem, CHILD, one(oem, 900));
        expect(IAgentRegistry.NothingToCondemn.selector, id);
        registry.condemn(CHILD, one(oem, 900));
        adopt(CHILD, AGENT);
        expect(IAgentRegistry.UnknownTerms.selector, registry.termsId(CHILD, one(oem, 901)));
        registry.condemn(CHILD, one(oem, 901));
        registry.condemn(CHILD, one(oem, 900));
        eq(sunsetOf(id), time() + NOTICE, "with notice");
        expect(IAgentRegistry.SunsetFixed.selector, id);
        vm.prank(oem);
        registry.sunsetTerms(id, CHILD, 0);
        skip(100);
        registry.condemn(CHILD, one(oem, 900));
        eq(sunsetOf(id), time() + NOTICE - 100, "the first moment stays");
        vm.prank(AUCTIONS);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 500, 0));
        registry.agreeAuctioned(CHILD, one(oem, 900), time() + 100 * NOTICE);
    }

    function test_a_condemnation_keeps_an_earlier_sunset_and_fixes_it() public {
        skip(1);
        register(oem, CHILD, 0, 0);
        bytes32 id = agree(oem, CHILD, one(oem, 900));
        uint32 moment = time() + NOTICE;
        vm.prank(oem);
        registry.sunsetTerms(id, CHILD, moment);
        skip(100);
        adopt(CHILD, AGENT);
        registry.condemn(CHILD, one(oem, 900));
        eq(sunsetOf(id), moment, "as announced");
        expect(IAgentRegistry.SunsetFixed.selector, id);
        vm.prank(oem);
        registry.sunsetTerms(id, CHILD, 0);
    }

    function test_a_later_sunset_is_brought_forward_by_a_condemnation() public {
        skip(1);
        register(oem, CHILD, 0, 0);
        bytes32 id = agree(oem, CHILD, one(oem, 900));
        vm.prank(oem);
        registry.sunsetTerms(id, CHILD, time() + 100 * NOTICE);
        adopt(CHILD, AGENT);
        registry.condemn(CHILD, one(oem, 900));
        eq(sunsetOf(id), time() + NOTICE, "notice from now");
    }
}
