// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {AgentRegistry} from "../src/AgentRegistry.sol";
import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {RegistryKit} from "./RegistryKit.sol";

/// @notice A wallet that is a contract: says yes to one digest, or no, or fails, or burns all gas, or tries to write.
contract Wallet is IERC1271 {
    enum Mood {
        Honest,
        Reverting,
        Burning,
        Writing,
        Bombing
    }

    Mood public mood;
    bytes32 public approved;
    AgentRegistry private _registry;

    constructor(AgentRegistry registry_) {
        _registry = registry_;
    }

    function set(Mood mood_, bytes32 approved_) external {
        (mood, approved) = (mood_, approved_);
    }

    function setPolicy(uint8 role, uint16 minBps) external {
        _registry.setPolicy(role, minBps);
    }

    function isValidSignature(bytes32 hash, bytes calldata) external view returns (bytes4) {
        if (mood == Mood.Reverting) revert("no");
        if (mood == Mood.Burning) for (uint256 i = 0;; ++i) {}
        if (mood == Mood.Writing) {
            (bool ok,) = address(_registry).staticcall(abi.encodeCall(_registry.setPolicy, (1, 1)));
            if (!ok) revert("a static call cannot write");
        }
        if (mood == Mood.Bombing) {
            assembly ("memory-safe") {
                return(0, 1000000)
            }
        }
        return hash == approved ? IERC1271.isValidSignature.selector : bytes4(0);
    }
}

/// @notice What a dishonest publisher, ancestor, party, squatter or wallet tries. Each must fail, or hurt only who tries.
contract RegistryAttacksTest is RegistryKit {
    Wallet private wallet;

    function setUp() public {
        deployRegistry();
        register(MAKER, AGENT, 0, 500);
        skip(1);
        wallet = new Wallet(registry);
    }

    function _id() private view returns (bytes32) {
        return registry.termsId(AGENT, table());
    }

    function _withWallet() private view returns (IAgentRegistry.Party[] memory parties) {
        parties = one(address(wallet), 700);
    }

    /// @dev The table with the wallet alone, agreed by the maker with `signature` as the wallet's.
    function _agreeWithWallet(bytes memory signature) private {
        bytes[] memory consents = new bytes[](1);
        consents[0] = signature;
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, _withWallet(), FOREVER, consents);
    }

    // ---- consent that was not given

    function test_a_maker_cannot_name_people_who_never_consented() public {
        bytes32 digest = registry.consentDigest(_id(), FOREVER);
        bytes[] memory consents = signatures(_id(), FOREVER);
        // The maker signs for the OEM; then the curator's own signature stands in the OEM's place.
        consents[1] = sign65(0xBAD, digest);
        for (uint256 i = 0; i < 2; ++i) {
            expect(IAgentRegistry.NoConsent.selector, 1);
            vm.prank(MAKER);
            registry.agreeTerms(AGENT, table(), FOREVER, consents);
            consents[1] = consents[2];
        }
    }

    function test_malformed_signatures_are_no_consent() public {
        bytes memory good = sign65(OEM_KEY, registry.consentDigest(_id(), FOREVER));
        bytes[] memory bad = new bytes[](7);
        (bytes32 r, bytes32 s) = (_word(good, 0), _word(good, 32));
        bytes32 high = bytes32(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 - uint256(s));
        bad[1] = new bytes(65);
        bad[2] = new bytes(64);
        bad[3] = bytes.concat(good, hex"00");
        bad[4] = abi.encodePacked(r, s, uint8(good[64]) - 27);
        bad[5] = abi.encodePacked(r, high, uint8(good[64]) == 27 ? 28 : 27);
        bad[6] = abi.encodePacked(r, bytes31(s));
        for (uint256 i = 0; i < bad.length; ++i) {
            bytes[] memory consents = signatures(_id(), FOREVER);
            consents[1] = bad[i];
            expect(IAgentRegistry.NoConsent.selector, 1);
            vm.prank(MAKER);
            registry.agreeTerms(AGENT, table(), FOREVER, consents);
        }
    }

    function _word(bytes memory data, uint256 offset) private pure returns (bytes32 word) {
        assembly ("memory-safe") {
            word := mload(add(add(data, 0x20), offset))
        }
    }

    function test_a_consent_is_good_for_one_table_deadline_contract_and_chain() public {
        bytes[] memory consents = signatures(_id(), FOREVER);
        IAgentRegistry.Party[] memory worse = table();
        worse[1].bps = 499;
        expect(IAgentRegistry.NoConsent.selector, 1);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, worse, FOREVER, consents);
        // The same parties for another agent of the maker's.
        register(MAKER, CHILD, 0, 0);
        expect(IAgentRegistry.NoConsent.selector, 1);
        vm.prank(MAKER);
        registry.agreeTerms(CHILD, table(), FOREVER, consents);
        expect(IAgentRegistry.NoConsent.selector, 1);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER - 1, consents);
        AgentRegistry twin = new AgentRegistry(AUCTIONS, LINEAGE_COURT);
        vm.prank(MAKER);
        twin.register(AGENT, 0, 0);
        expect(IAgentRegistry.NoConsent.selector, 1);
        vm.prank(MAKER);
        twin.agreeTerms(AGENT, table(), FOREVER, consents);
        vm.chainId(5);
        expect(IAgentRegistry.NoConsent.selector, 1);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER, consents);
    }

    function test_a_policy_of_one_role_says_nothing_about_another() public {
        vm.prank(oem);
        registry.setPolicy(2, 100);
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(oem, 2, 100);
        parties[1] = IAgentRegistry.Party(oem, 3, 9_000);
        expect(IAgentRegistry.NoConsent.selector, 1);
        agree(MAKER, AGENT, parties);
        // A share split over two roles does not add up to what the policy asks of one.
        parties[0].bps = 99;
        parties[1] = IAgentRegistry.Party(oem, 4, 1);
        expect(IAgentRegistry.NoConsent.selector, uint256(0));
        agree(MAKER, AGENT, parties);
    }

    function test_an_ancestor_consents_to_no_less_than_it_asks_and_only_for_descendants() public {
        register(oem, CHILD, AGENT, 0);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 500, 499));
        agree(oem, CHILD, one(MAKER, 499));
        agree(oem, CHILD, one(MAKER, 500));
        register(oem, GRANDCHILD, 0, 0);
        expect(IAgentRegistry.NoConsent.selector, uint256(0));
        agree(oem, GRANDCHILD, one(MAKER, 500));
    }

    function test_the_view_takes_nobody_s_word_for_the_sender() public {
        vm.prank(oem);
        expect(IAgentRegistry.NotOwner.selector, oem);
        registry.checkTable(AGENT, oem, one(oem, 7), 0, none());
        eq(registry.checkTable(AGENT, MAKER, one(MAKER, 7), 0, none()), 7, "as the maker would");
    }

    function test_dirty_words_name_no_other_table() public {
        bytes memory call = abi.encodeCall(registry.agreeTerms, (AGENT, one(MAKER, 7), 0, none()));
        // The payee is word 5 after the selector, then role, then share.
        for (uint256 word = 5; word < 8; ++word) {
            bytes memory dirty = bytes.concat(call);
            dirty[4 + 32 * word] = 0x01;
            vm.prank(MAKER);
            (bool ok,) = address(registry).call(dirty);
            vm.assertTrue(!ok, "dirty");
        }
        vm.prank(MAKER);
        (bool clean,) = address(registry).call(call);
        vm.assertTrue(clean, "clean");
    }

    function test_a_consent_that_points_outside_the_calldata_is_none() public {
        bytes[] memory consents = new bytes[](1);
        consents[0] = sign65(OEM_KEY, registry.consentDigest(registry.termsId(AGENT, one(oem, 7)), FOREVER));
        bytes memory call = abi.encodeCall(registry.agreeTerms, (AGENT, one(oem, 7), FOREVER, consents));
        // Words: agent, 0x80, deadline, at; 1, payee, role, share; 1, offset of the consent.
        uint256[3] memory wild = [type(uint256).max, uint256(1) << 255, 1 << 20];
        for (uint256 i = 0; i < 3; ++i) {
            bytes memory moved = bytes.concat(call);
            uint256 offset = wild[i];
            assembly ("memory-safe") {
                mstore(add(moved, add(0x24, mul(9, 0x20))), offset)
            }
            vm.prank(MAKER);
            (bool ok,) = address(registry).call(moved);
            vm.assertTrue(!ok, "wild");
        }
        vm.prank(MAKER);
        (bool clean,) = address(registry).call(call);
        vm.assertTrue(clean, "clean");
    }

    // ---- wallets that are contracts

    function test_a_wallet_consents_by_erc_1271_or_policy() public {
        expect(IAgentRegistry.NoConsent.selector, uint256(0));
        _agreeWithWallet("");
        wallet.set(Wallet.Mood.Honest, registry.consentDigest(registry.termsId(AGENT, _withWallet()), FOREVER));
        _agreeWithWallet("");
        vm.assertTrue(registry.isOpen(registry.termsId(AGENT, _withWallet())), "open");
        wallet.setPolicy(1, 1);
        agree(MAKER, AGENT, one(address(wallet), 1));
    }

    function test_a_wallet_s_consent_expires_too() public {
        wallet.set(Wallet.Mood.Honest, registry.consentDigest(registry.termsId(AGENT, _withWallet()), time()));
        expect(IAgentRegistry.ConsentExpired.selector, time());
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, _withWallet(), time(), new bytes[](1));
    }

    function test_a_wallet_that_reverts_writes_or_answers_too_much_gives_no_consent() public {
        Wallet.Mood[3] memory moods = [Wallet.Mood.Reverting, Wallet.Mood.Writing, Wallet.Mood.Bombing];
        for (uint256 i = 0; i < 3; ++i) {
            wallet.set(moods[i], registry.consentDigest(registry.termsId(AGENT, _withWallet()), FOREVER));
            expect(IAgentRegistry.NoConsent.selector, uint256(0));
            _agreeWithWallet("x");
            eq(registry.policyOf(address(wallet), 1), 0, "nothing written");
        }
    }

    /// @dev It burns what its caller sent, which only its caller pays. Whoever leaves it out is not hurt, nor is who agreed before.
    function test_a_wallet_that_burns_all_gas_hurts_only_who_names_it() public {
        bytes32 id = registry.termsId(AGENT, _withWallet());
        wallet.set(Wallet.Mood.Burning, 0);
        vm.prank(MAKER);
        (bool ok,) = address(registry).call{gas: 2_000_000}(
            abi.encodeCall(registry.agreeTerms, (AGENT, _withWallet(), FOREVER, new bytes[](1)))
        );
        vm.assertTrue(!ok && !registry.isOpen(id), "no terms");
        agree(MAKER, AGENT, one(MAKER, 7));
        // An auction asks no wallet.
        vm.prank(AUCTIONS);
        registry.agreeAuctioned(AGENT, _withWallet(), time() + 60);
        vm.assertTrue(registry.isOpen(id), "auctioned");
    }

    // ---- squatting

    function test_a_squatter_owns_a_digest_but_nothing_of_its_publisher() public {
        bytes32 digest = keccak256("published next block");
        register(curator, digest, 0, 5_000);
        expect(IAgentRegistry.AlreadyRegistered.selector, digest);
        register(MAKER, digest, 0, 0);
        // It can name nobody but itself, and cannot make the digest a successor of the publisher's agents.
        expect(IAgentRegistry.NoConsent.selector, uint256(0));
        agree(curator, digest, one(MAKER, 7));
        expect(IAgentRegistry.BadSuccessor.selector, digest);
        vm.prank(MAKER);
        registry.supersede(AGENT, digest);
        expect(IAgentRegistry.NotOwner.selector, curator);
        vm.prank(curator);
        registry.supersede(AGENT, digest);
    }

    // ---- lineages

    function test_adoptions_never_close_a_circle_even_within_a_second() public {
        for (uint256 i = 1; i <= 3; ++i) {
            registry.register(bytes32(i), 0, 0);
        }
        registry.register(bytes32(uint256(4)), bytes32(uint256(1)), 0);
        for (uint256 child = 1; child <= 4; ++child) {
            for (uint256 parent = 1; parent <= 4; ++parent) {
                expect(IAgentRegistry.NotAdoptable.selector, bytes32(child));
                adopt(bytes32(child), bytes32(parent));
            }
        }
        expect(IAgentRegistry.NotAdoptable.selector, AGENT);
        adopt(AGENT, bytes32(uint256(4)));
        adopt(bytes32(uint256(1)), AGENT);
    }

    /// @dev 300 adoptions on top of each other: the walk stays bounded, and so does the recorded depth.
    function test_a_tower_of_adoptions_neither_overflows_nor_blocks_tables() public {
        bytes32 above = AGENT;
        for (uint256 i = 1; i <= 300; ++i) {
            skip(1);
            register(oem, bytes32(i), 0, 5_000);
            adopt(bytes32(i), above);
            above = bytes32(i);
        }
        (,,, uint8 depth,,,) = registry.agents(above);
        eq(depth, 17, "as deep as anybody counts");
        agree(oem, above, one(oem, 5_000));
        skip(1);
        register(curator, CHILD, 0, 0);
        adopt(CHILD, above);
        agree(curator, CHILD, one(oem, 5_000));
    }

    function test_an_owner_cannot_be_owed_twice_for_one_share() public {
        register(oem, CHILD, AGENT, 400);
        register(MAKER, GRANDCHILD, CHILD, 600);
        bytes32 last = keccak256("last");
        register(curator, last, GRANDCHILD, 0);
        IAgentRegistry.Party[] memory parties = new IAgentRegistry.Party[](2);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 1_099);
        parties[1] = IAgentRegistry.Party(oem, 2, 400);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, AGENT, 1_100, 1_099));
        agree(curator, last, parties);
        parties[0].bps = 1_100;
        agree(curator, last, parties);
    }

    // ---- races with the end

    function test_a_table_sent_before_the_sunset_but_mined_at_it_is_refused() public {
        uint32 moment = time() + NOTICE;
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, moment);
        bytes[] memory consents = signatures(_id(), FOREVER);
        vm.warp(moment);
        expect(IAgentRegistry.AgentSunset.selector, AGENT);
        vm.prank(MAKER);
        registry.agreeTerms(AGENT, table(), FOREVER, consents);
    }

    function test_calling_off_and_announcing_again_gives_the_whole_notice_again() public {
        bytes32 id = agree(MAKER, AGENT, one(MAKER, 7));
        uint32 moment = time() + NOTICE;
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, moment);
        vm.warp(moment - 1);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, 0);
        expect(IAgentRegistry.NoticeTooShort.selector, time() + NOTICE);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, moment);
    }

    function test_the_owner_can_neither_spoil_an_auction_beforehand_nor_afterwards() public {
        // Beforehand: the foreseen table as ordinary terms, about to sunset.
        bytes32 id = agree(MAKER, AGENT, one(MAKER, 7));
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, time() + NOTICE);
        skip(NOTICE);
        vm.prank(AUCTIONS);
        registry.agreeAuctioned(AGENT, one(MAKER, 7), time() + 30 days);
        vm.assertTrue(registry.isOpen(id), "the epoch has its terms");
        expect(IAgentRegistry.SunsetFixed.selector, id);
        vm.prank(MAKER);
        registry.sunsetTerms(id, AGENT, time() + NOTICE);
    }

    function test_nobody_condemns_a_table_that_pays() public {
        register(oem, CHILD, AGENT, 0);
        bytes32 id = agree(oem, CHILD, one(MAKER, 500));
        expect(IAgentRegistry.NothingToCondemn.selector, id);
        registry.condemn(CHILD, one(MAKER, 500));
        vm.prank(AUCTIONS);
        id = registry.agreeAuctioned(CHILD, one(MAKER, 501), time() + 60);
        expect(IAgentRegistry.NothingToCondemn.selector, id);
        registry.condemn(CHILD, one(MAKER, 501));
    }
}
