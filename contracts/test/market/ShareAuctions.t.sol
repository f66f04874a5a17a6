// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ShareAuctions} from "../../src/ShareAuctions.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {IEpochs} from "../../src/interfaces/IEpochs.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice A share auction from opening to terms, and what each step refuses.
contract ShareAuctionsTest is MarketKit {
    function setUp() public {
        deployMarket();
        for (uint256 i = 0; i < 6; ++i) {
            fund(bidder(i), 10 * COIN);
        }
    }

    function _sealAll(bytes32 id, uint16[] memory bids) private {
        for (uint256 i = 0; i < bids.length; ++i) {
            sealShare(id, bidder(i), bids[i]);
        }
    }

    function _revealAll(bytes32 id, uint16[] memory bids) private {
        for (uint256 i = 0; i < bids.length; ++i) {
            revealShare(id, bidder(i), bids[i]);
        }
    }

    function _run(bytes32 id, uint16[] memory bids) private returns (bytes32 terms) {
        _sealAll(id, bids);
        toReveals();
        _revealAll(id, bids);
        toSettling();
        return shares.settle(id, baseTable());
    }

    function _bids(uint16 a, uint16 b, uint16 c) private pure returns (uint16[] memory bids) {
        bids = new uint16[](3);
        (bids[0], bids[1], bids[2]) = (a, b, c);
    }

    // ---- results

    function test_the_lowest_win_at_the_first_losers_price_and_party_0_gets_what_was_saved() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        bytes32 terms = _run(id, _bids(300, 100, 250));
        IAgentRegistry.Party[] memory table = new IAgentRegistry.Party[](5);
        for (uint256 i = 0; i < 3; ++i) {
            table[i] = baseTable()[i];
        }
        table[0].bps = 1_000 + 2 * 400 - 2 * 300;
        table[3] = IAgentRegistry.Party(bidder(1), CURATORS, 300);
        table[4] = IAgentRegistry.Party(bidder(2), CURATORS, 300);
        vm.assertEq(terms, registry.termsId(AGENT, table), "table");
        vm.assertEq(shares.termsOf(AGENT, NEXT), terms, "terms of the epoch");
        vm.assertTrue(registry.isOpen(terms), "open");
        address[] memory winners = shares.winnersOf(id);
        eq(winners.length, 2, "winners");
        vm.assertEq(winners[0], bidder(1), "first");
        eq(coin.balanceOf(address(shares)), 0, "all deposits are back");
        eq(coin.balanceOf(bidder(0)), 10 * COIN, "the loser's too");
    }

    function test_the_terms_sunset_when_the_epoch_ends() public {
        bytes32 terms = _run(openShares(CURATORS, 2, 400), _bids(300, 100, 250));
        vm.warp(startOf(NEXT + 1) - 1);
        vm.assertTrue(registry.isOpen(terms), "last second");
        vm.warp(startOf(NEXT + 1));
        vm.assertTrue(!registry.isOpen(terms), "over");
    }

    function test_hosts_bid_for_what_they_keep_and_party_0_gets_the_rest() public {
        bytes32 id = openShares(HOSTS, 2, 8_000);
        bytes32 terms = _run(id, _bids(7_000, 6_500, 7_500));
        IAgentRegistry.Party[] memory table = baseTable();
        table[0].bps = 10_000 - 7_500 - 500 - 300;
        vm.assertEq(terms, registry.termsId(AGENT, table), "table");
        address[] memory admitted = shares.winnersOf(id);
        vm.assertEq(admitted[0], bidder(1), "cheapest");
        vm.assertEq(admitted[1], bidder(0), "second");
    }

    function test_the_hosts_reserve_gives_party_0_its_base_share_exactly() public {
        bytes32 terms = _run(openShares(HOSTS, 3, 8_200), _bids(1, 2, 3));
        vm.assertEq(terms, registry.termsId(AGENT, baseTable()), "the base table");
    }

    function test_one_bid_wins_at_the_reserve() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        uint16[] memory bids = new uint16[](1);
        bids[0] = 10;
        bytes32 terms = _run(id, bids);
        (, uint16 royaltyBps,,,) = _terms(terms);
        eq(royaltyBps, 1_800 + 800, "the empty seat's share went to party 0");
        eq(shares.leading(id).length, 1, "one");
        eq(shares.winnersOf(id).length, 1, "winner");
    }

    function _terms(bytes32 terms)
        private
        view
        returns (bytes20 tag, uint16 royaltyBps, uint8 count, uint32 agreedAt, uint32 sunsetAt)
    {
        (bool done, bytes memory answer) = address(registry).staticcall(abi.encodeCall(registry.terms, (terms)));
        vm.assertTrue(done, "terms");
        return abi.decode(answer, (bytes20, uint16, uint8, uint32, uint32));
    }

    function test_no_bid_makes_no_terms() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        toSettling();
        vm.expectEmit(true, true, true, true, address(shares));
        emit IShareAuctions.AuctionVoid(id, 0);
        vm.assertEq(shares.settle(id, baseTable()), bytes32(0), "void");
        vm.assertEq(shares.termsOf(AGENT, NEXT), bytes32(0), "no terms");
        eq(shares.winnersOf(id).length, 0, "no winners");
    }

    function test_bids_that_stay_sealed_lose_their_deposits_and_make_no_terms() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        _sealAll(id, _bids(300, 100, 250));
        toSettling();
        uint256 supply = coin.totalSupply();
        vm.expectEmit(true, true, true, true, address(shares));
        emit IShareAuctions.AuctionVoid(id, 3 * uint256(SHARE_DEPOSIT));
        shares.settle(id, baseTable());
        eq(supply - coin.totalSupply(), 3 * uint256(SHARE_DEPOSIT), "destroyed");
        eq(coin.balanceOf(address(shares)), 0, "nothing is left");
    }

    function test_of_equal_bids_the_earlier_ones_win_however_they_are_opened() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        for (uint256 i = 0; i < 5; ++i) {
            sealShare(id, bidder(i), 200);
        }
        toReveals();
        for (uint256 i = 5; i != 0; --i) {
            revealShare(id, bidder(i - 1), 200);
        }
        toSettling();
        shares.settle(id, baseTable());
        address[] memory winners = shares.winnersOf(id);
        vm.assertEq(winners[0], bidder(0), "first");
        vm.assertEq(winners[1], bidder(1), "second");
    }

    function test_the_same_result_in_the_next_epoch_lasts_to_its_end() public {
        bytes32 first = _run(openShares(CURATORS, 2, 400), _bids(300, 100, 250));
        uint32 later = NEXT + 1;
        vm.prank(MAKER);
        bytes32 id = shares.open(AGENT, later, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
        _sealAll(id, _bids(300, 100, 250));
        vm.warp(commitEnds(later));
        _revealAll(id, _bids(300, 100, 250));
        vm.warp(startOf(later));
        vm.assertTrue(!registry.isOpen(first), "over before it is settled");
        vm.assertEq(shares.settle(id, baseTable()), first, "the same table");
        vm.assertTrue(registry.isOpen(first), "open again");
        vm.warp(startOf(later + 1));
        vm.assertTrue(!registry.isOpen(first), "and over");
    }

    // ---- opening

    function _refuse(bytes4 selector, uint8 role, uint8 seats, uint16 reserveBps) private {
        vm.expectRevert(selector);
        openShares(role, seats, reserveBps);
    }

    function test_what_makes_no_table_is_not_opened() public {
        _refuse(IShareAuctions.BadAuction.selector, 5, 1, 100);
        _refuse(IShareAuctions.BadAuction.selector, CURATORS, 0, 100);
        _refuse(IShareAuctions.BadAuction.selector, CURATORS, 9, 100);
        _refuse(IShareAuctions.BadAuction.selector, CURATORS, 1, 0);
        // 1,800 in the base table: the host keeps at least one of 10,000.
        _refuse(IShareAuctions.BadAuction.selector, CURATORS, 4, 2_050);
        openShares(CURATORS, 4, 2_049);
    }

    function test_party_0_of_a_host_auction_cannot_fall_below_its_base_share() public {
        _refuse(IShareAuctions.BadAuction.selector, HOSTS, 1, 8_201);
        openShares(HOSTS, 1, 8_200);
    }

    function test_a_full_table_has_no_seats_to_sell() public {
        IAgentRegistry.Party[] memory wide = new IAgentRegistry.Party[](15);
        wide[0] = IAgentRegistry.Party(MAKER, 1, 100);
        wide[1] = IAgentRegistry.Party(ANCESTOR, 1, 300);
        for (uint256 i = 2; i < 15; ++i) {
            address payee = bidder(i);
            vm.prank(payee);
            registry.setPolicy(3, 1);
            wide[i] = IAgentRegistry.Party(payee, 3, 1);
        }
        vm.prank(MAKER);
        vm.expectRevert(IShareAuctions.BadAuction.selector);
        shares.open(AGENT, NEXT, CURATORS, 2, 100, wide, 0, new bytes[](0));
        vm.prank(MAKER);
        shares.open(AGENT, NEXT, CURATORS, 1, 100, wide, 0, new bytes[](0));
    }

    function test_only_the_owner_opens_once_and_in_time() public {
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.NotOwner.selector, address(this)));
        shares.open(AGENT, NEXT, CURATORS, 1, 100, baseTable(), 0, new bytes[](0));
        bytes32 id = openShares(CURATORS, 1, 100);
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.AlreadyOpen.selector, id));
        openShares(CURATORS, 1, 100);
        vm.warp(commitEnds(NEXT + 1));
        vm.prank(MAKER);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, commitEnds(NEXT + 1)));
        shares.open(AGENT, NEXT + 1, CURATORS, 1, 100, baseTable(), 0, new bytes[](0));
    }

    function test_an_epoch_that_has_no_end_is_not_opened() public {
        vm.prank(MAKER);
        vm.expectRevert();
        shares.open(AGENT, type(uint32).max, CURATORS, 1, 100, baseTable(), 0, new bytes[](0));
        vm.prank(MAKER);
        vm.expectRevert();
        shares.open(AGENT, 20_000, CURATORS, 1, 100, baseTable(), 0, new bytes[](0));
        vm.prank(MAKER);
        vm.expectRevert(IShareAuctions.BadAuction.selector);
        shares.open(AGENT, 0, CURATORS, 1, 100, baseTable(), 0, new bytes[](0));
    }

    function test_the_base_table_needs_its_parties_consent_and_pays_the_ancestors() public {
        IAgentRegistry.Party[] memory table = baseTable();
        table[1].payee = bidder(0);
        vm.prank(MAKER);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.NoConsent.selector, 1));
        shares.open(AGENT, NEXT, CURATORS, 1, 100, table, 0, new bytes[](0));
        table = baseTable();
        table[2].bps = 299;
        vm.prank(MAKER);
        vm.expectRevert(abi.encodeWithSelector(IAgentRegistry.AncestorUnderpaid.selector, PARENT, 300, 299));
        shares.open(AGENT, NEXT, CURATORS, 1, 100, table, 0, new bytes[](0));
    }

    function test_a_registry_that_trusts_another_auction_is_refused() public {
        vm.expectRevert();
        new ShareAuctions(coin, registry, parameters, GENESIS, EPOCH);
    }

    // ---- the calendar

    function test_bids_are_sealed_and_opened_in_their_windows_only() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        vm.warp(startOf(NEXT - 1) - 1);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, startOf(NEXT - 1)));
        vm.prank(bidder(0));
        shares.commit(id, keccak256("early"));
        vm.warp(commitEnds(NEXT) - 1);
        sealShare(id, bidder(0), 100);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, commitEnds(NEXT)));
        revealShare(id, bidder(0), 100);
        toReveals();
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, commitEnds(NEXT)));
        vm.prank(bidder(1));
        shares.commit(id, keccak256("late"));
        vm.warp(startOf(NEXT) - 1);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, startOf(NEXT)));
        shares.settle(id, baseTable());
        revealShare(id, bidder(0), 100);
        toSettling();
        shares.settle(id, baseTable());
    }

    function test_a_changed_deposit_is_for_auctions_opened_afterwards() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        sealShare(id, bidder(0), 100);
        IParameters.MarketParams memory dearer = marketParams();
        dearer.shareDeposit = 3 * SHARE_DEPOSIT;
        parameters.setMarket(dearer);
        sealShare(id, bidder(1), 200);
        eq(coin.balanceOf(address(shares)), 2 * uint256(SHARE_DEPOSIT), "the old one");
        toReveals();
        revealShare(id, bidder(0), 100);
        eq(coin.balanceOf(bidder(0)), 10 * COIN, "what was paid comes back");
        toSettling();
        uint256 supply = coin.totalSupply();
        shares.settle(id, baseTable());
        eq(supply - coin.totalSupply(), SHARE_DEPOSIT, "what was paid is destroyed");
        eq(coin.balanceOf(address(shares)), 0, "nothing is left");
    }
}
