// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Coins} from "../../src/Coins.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {IEpochs} from "../../src/interfaces/IEpochs.sol";
import {IPayments} from "../../src/interfaces/IPayments.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {TricksterCoin} from "./Accomplices.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice What a bidder, an owner or a passer-by may try against a share auction. Each test says the attack.
contract ShareAttacksTest is MarketKit {
    address private constant MALLORY = address(0xBAD);
    TricksterCoin private trickster;
    bytes32 private id;

    function setUp() public {
        trickster = new TricksterCoin(1e10 * uint256(COIN));
        deployMarketOn(trickster);
        for (uint256 i = 0; i < 4; ++i) {
            fund(bidder(i), 10 * COIN);
        }
        fund(MALLORY, 10 * COIN);
        fund(MAKER, 10 * COIN);
        fund(OEM, 10 * COIN);
        id = openShares(CURATORS, 2, 400);
    }

    function test_attack_copied_seal_opens_for_nobody_else() public {
        bytes32 seal = shares.sealOf(id, bidder(0), 100, SALT);
        sealShare(id, bidder(0), 100);
        vm.prank(MALLORY);
        shares.commit(id, seal);
        toReveals();
        revealShare(id, bidder(0), 100);
        vm.prank(MALLORY);
        vm.expectRevert(IShareAuctions.BadReveal.selector);
        shares.reveal(id, 100, SALT, baseTable());
    }

    function test_attack_seal_of_another_auction_epoch_or_chain_does_not_open() public {
        vm.prank(MAKER);
        bytes32 later = shares.open(AGENT, NEXT + 1, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
        bytes32 elsewhere = shares.sealOf(later, bidder(0), 100, SALT);
        vm.prank(bidder(0));
        shares.commit(id, elsewhere);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes32 otherChain = shares.sealOf(id, bidder(1), 100, SALT);
        vm.chainId(here);
        vm.prank(bidder(1));
        shares.commit(id, otherChain);
        toReveals();
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectRevert(IShareAuctions.BadReveal.selector);
            revealShare(id, bidder(i), 100);
        }
    }

    function test_attack_open_the_seal_with_another_bid_or_salt() public {
        sealShare(id, bidder(0), 100);
        toReveals();
        vm.expectRevert(IShareAuctions.BadReveal.selector);
        revealShare(id, bidder(0), 99);
        vm.expectRevert(IShareAuctions.BadReveal.selector);
        vm.prank(bidder(0));
        shares.reveal(id, 100, keccak256("other"), baseTable());
    }

    function test_attack_empty_seal_that_looks_opened() public {
        vm.prank(MALLORY);
        vm.expectRevert(IShareAuctions.BadReveal.selector);
        shares.commit(id, bytes32(uint256(type(uint32).max)));
    }

    function test_attack_late_reveal() public {
        sealShare(id, bidder(0), 100);
        toSettling();
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, startOf(NEXT)));
        revealShare(id, bidder(0), 100);
    }

    function test_attack_reveal_twice_for_two_deposits() public {
        sealShare(id, bidder(0), 100);
        sealShare(id, bidder(1), 100);
        toReveals();
        revealShare(id, bidder(0), 100);
        vm.expectRevert(IShareAuctions.BadReveal.selector);
        revealShare(id, bidder(0), 100);
        (uint32 order, bool revealed) = shares.bidOf(id, bidder(0));
        eq(order, 1, "order");
        vm.assertTrue(revealed, "revealed");
    }

    function test_attack_second_bid_in_place_of_the_first() public {
        sealShare(id, bidder(0), 100);
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.BidTaken.selector, bidder(0)));
        sealShare(id, bidder(0), 50);
    }

    function test_attack_bid_over_the_reserve_or_of_nothing() public {
        sealShare(id, bidder(0), 401);
        sealShare(id, bidder(1), 0);
        toReveals();
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.OverReserve.selector, 400));
        revealShare(id, bidder(0), 401);
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.OverReserve.selector, 400));
        revealShare(id, bidder(1), 0);
    }

    function test_attack_settle_before_time_or_twice() public {
        sealShare(id, bidder(0), 100);
        toReveals();
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, startOf(NEXT)));
        shares.settle(id, baseTable());
        revealShare(id, bidder(0), 100);
        toSettling();
        shares.settle(id, baseTable());
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.WrongAuction.selector, id));
        shares.settle(id, baseTable());
    }

    function test_attack_settle_or_reveal_with_another_table() public {
        sealShare(id, bidder(0), 100);
        toReveals();
        IAgentRegistry.Party[] memory stolen = baseTable();
        stolen[0].payee = MALLORY;
        vm.prank(bidder(0));
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.WrongAuction.selector, id));
        shares.reveal(id, 100, SALT, stolen);
        revealShare(id, bidder(0), 100);
        toSettling();
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.WrongAuction.selector, id));
        shares.settle(id, stolen);
    }

    function test_attack_bid_in_an_auction_that_nobody_opened() public {
        vm.prank(MALLORY);
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.WrongAuction.selector, bytes32(0)));
        shares.commit(0, keccak256("seal"));
    }

    function test_attack_party_of_the_base_table_blocks_settling_with_a_second_line_in_its_role() public {
        vm.prank(MAKER);
        bytes32 oems = shares.open(AGENT, NEXT + 1, OEMS, 1, 400, baseTable(), 0, new bytes[](0));
        vm.warp(startOf(NEXT));
        bytes32 seal = shares.sealOf(oems, OEM, 100, SALT);
        vm.prank(OEM);
        shares.commit(oems, seal);
        vm.warp(commitEnds(NEXT + 1));
        vm.prank(OEM);
        vm.expectRevert(abi.encodeWithSelector(IShareAuctions.BidTaken.selector, OEM));
        shares.reveal(oems, 100, SALT, baseTable());
    }

    function test_a_party_may_win_a_seat_in_another_role() public {
        sealShare(id, OEM, 100);
        toReveals();
        revealShare(id, OEM, 100);
        toSettling();
        vm.assertTrue(shares.settle(id, baseTable()) != 0, "settled");
    }

    function test_attack_owner_bids_in_its_own_auction_and_no_winner_gets_less_than_it_asked() public {
        sealShare(id, bidder(0), 150);
        sealShare(id, bidder(1), 250);
        sealShare(id, MAKER, 1);
        toReveals();
        revealShare(id, bidder(0), 150);
        revealShare(id, bidder(1), 250);
        revealShare(id, MAKER, 1);
        toSettling();
        vm.assertTrue(shares.settle(id, baseTable()) != 0, "settled");
        address[] memory winners = shares.winnersOf(id);
        vm.assertEq(winners[0], MAKER, "it bought a seat");
        vm.assertEq(winners[1], bidder(0), "at 250, of which it asked 150");
    }

    function test_attack_owner_floods_the_auction_after_seeing_the_bids() public {
        sealShare(id, bidder(0), 150);
        toReveals();
        revealShare(id, bidder(0), 150);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, commitEnds(NEXT)));
        sealShare(id, MAKER, 149);
    }

    function test_attack_bids_held_back_cost_their_deposits() public {
        for (uint256 i = 0; i < 4; ++i) {
            sealShare(id, bidder(i), uint16(100 + i));
        }
        toReveals();
        revealShare(id, bidder(3), 103);
        toSettling();
        shares.settle(id, baseTable());
        eq(trickster.balanceOf(Coins.SINK), 3 * uint256(SHARE_DEPOSIT), "a coin that cannot burn goes where nobody can");
        eq(trickster.balanceOf(address(shares)), 0, "nothing is left");
    }

    function test_attack_bidder_frozen_by_the_coin_blocks_nobody() public {
        sealShare(id, bidder(0), 100);
        sealShare(id, bidder(1), 200);
        toReveals();
        trickster.freeze(bidder(0), true);
        revealShare(id, bidder(0), 100);
        revealShare(id, bidder(1), 200);
        toSettling();
        shares.settle(id, baseTable());
        eq(shares.unpaid(bidder(0)), SHARE_DEPOSIT, "its deposit waits");
        vm.prank(bidder(0));
        shares.collectUnpaid(MALLORY);
        eq(coin.balanceOf(MALLORY), 10 * COIN + SHARE_DEPOSIT, "paid where it says");
        vm.prank(bidder(0));
        vm.expectRevert(abi.encodeWithSelector(IPayments.NothingUnpaid.selector, bidder(0)));
        shares.collectUnpaid(MALLORY);
    }

    function test_attack_fee_coin_is_refused() public {
        bytes32 seal = shares.sealOf(id, MALLORY, 100, SALT);
        trickster.setFee(1);
        vm.prank(MALLORY);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, SHARE_DEPOSIT, SHARE_DEPOSIT - 1));
        shares.commit(id, seal);
    }

    // ---- what may change between opening and settling

    function test_an_agent_that_has_sunset_voids_its_auction_and_keeps_no_deposit() public {
        uint32 later = NEXT + 3;
        vm.prank(MAKER);
        bytes32 doomed = shares.open(AGENT, later, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
        uint32 end = uint32(startOf(later));
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, end);
        vm.warp(startOf(later - 1));
        sealShare(doomed, bidder(0), 100);
        vm.warp(commitEnds(later));
        revealShare(doomed, bidder(0), 100);
        vm.warp(end);
        vm.assertEq(shares.settle(doomed, baseTable()), bytes32(0), "void");
        vm.assertTrue(shares.auctions(doomed).state == IShareAuctions.State.Void, "state");
        eq(coin.balanceOf(address(shares)), 0, "nothing is left");
        vm.prank(MAKER);
        vm.expectRevert();
        shares.open(AGENT, later + 1, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
    }

    function test_an_agent_that_will_be_gone_opens_nothing() public {
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, uint32(startOf(NEXT + 3)));
        vm.prank(MAKER);
        vm.expectRevert(IShareAuctions.BadAuction.selector);
        shares.open(AGENT, NEXT + 3, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
        vm.prank(MAKER);
        shares.open(AGENT, NEXT + 2, CURATORS, 2, 400, baseTable(), 0, new bytes[](0));
    }

    /// @dev A root, adopted while its auction runs by a parent who asks for more than the table pays.
    function test_an_adoption_that_the_table_does_not_pay_voids_the_auction() public {
        bytes32 root = keccak256("root");
        skip(1);
        vm.prank(MAKER);
        registry.register(root, 0, 0);
        IAgentRegistry.Party[] memory table = new IAgentRegistry.Party[](1);
        table[0] = IAgentRegistry.Party(MAKER, 1, 1_000);
        vm.prank(MAKER);
        bytes32 orphan = shares.open(root, NEXT, CURATORS, 2, 400, table, 0, new bytes[](0));
        sealShare(orphan, bidder(0), 100);
        registry.adopt(root, PARENT);
        toReveals();
        vm.prank(bidder(0));
        shares.reveal(orphan, 100, SALT, table);
        toSettling();
        vm.assertEq(shares.settle(orphan, table), bytes32(0), "void");
        eq(coin.balanceOf(address(shares)), 0, "nothing is left");
    }

    function test_an_auction_that_nobody_settled_in_its_epoch_is_void() public {
        sealShare(id, bidder(0), 100);
        sealShare(id, bidder(1), 100);
        toReveals();
        revealShare(id, bidder(0), 100);
        vm.warp(startOf(NEXT + 1));
        vm.assertEq(shares.settle(id, baseTable()), bytes32(0), "void");
        eq(coin.balanceOf(address(shares)), 0, "nothing is left");
    }

    /// @dev However little gas is sent, the auction ends with its terms or does not end.
    function testFuzz_attack_void_an_auction_by_sending_too_little_gas(uint256 gas_) public {
        sealShare(id, bidder(0), 100);
        toReveals();
        revealShare(id, bidder(0), 100);
        toSettling();
        gas_ = bound(gas_, 30_000, 400_000);
        try shares.settle{gas: gas_}(id, baseTable()) returns (bytes32 terms) {
            vm.assertTrue(terms != 0, "void");
        } catch {
            vm.assertTrue(shares.auctions(id).state == IShareAuctions.State.Open, "still open");
        }
    }
}
