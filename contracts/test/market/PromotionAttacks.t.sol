// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Coins} from "../../src/Coins.sol";
import {IEpochs} from "../../src/interfaces/IEpochs.sol";
import {IPromotionAuctions} from "../../src/interfaces/IPromotionAuctions.sol";
import {TricksterCoin} from "./Accomplices.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice What a bidder or a passer-by may try against a promotion auction. Each test says the attack.
contract PromotionAttacksTest is MarketKit {
    uint96 private constant PURSE = 1_000 * COIN;
    address private constant MALLORY = address(0xBAD);
    TricksterCoin private trickster;

    function setUp() public {
        trickster = new TricksterCoin(1e10 * uint256(COIN));
        deployMarketOn(trickster);
        for (uint256 i = 0; i < 4; ++i) {
            fund(bidder(i), PURSE);
        }
        fund(MALLORY, PURSE);
    }

    function _refuseReveal(uint8 slot, address who, bytes32 agent, uint96 amount) private {
        vm.expectRevert(IPromotionAuctions.BadReveal.selector);
        revealPromotion(slot, who, agent, amount);
    }

    function test_attack_copied_seal_opens_for_nobody_else() public {
        bytes32 seal = promotions.sealOf(NEXT, 0, bidder(0), AGENT, 20 * COIN, SALT);
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        vm.prank(MALLORY);
        promotions.commit(NEXT, 0, seal);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
        _refuseReveal(0, MALLORY, AGENT, 20 * COIN);
    }

    function test_attack_seal_replayed_in_another_slot_epoch_or_chain() public {
        bytes32 slot0 = promotions.sealOf(NEXT, 0, bidder(0), AGENT, 20 * COIN, SALT);
        bytes32 later = promotions.sealOf(NEXT + 1, 0, bidder(1), AGENT, 20 * COIN, SALT);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes32 otherChain = promotions.sealOf(NEXT, 0, bidder(2), AGENT, 20 * COIN, SALT);
        vm.chainId(here);
        vm.prank(bidder(0));
        promotions.commit(NEXT, 1, slot0);
        vm.prank(bidder(1));
        promotions.commit(NEXT, 0, later);
        vm.prank(bidder(2));
        promotions.commit(NEXT, 0, otherChain);
        toReveals();
        _refuseReveal(1, bidder(0), AGENT, 20 * COIN);
        _refuseReveal(0, bidder(1), AGENT, 20 * COIN);
        _refuseReveal(0, bidder(2), AGENT, 20 * COIN);
    }

    function test_attack_open_the_seal_with_another_agent_or_amount() public {
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        toReveals();
        _refuseReveal(0, bidder(0), PARENT, 20 * COIN);
        _refuseReveal(0, bidder(0), AGENT, 21 * COIN);
    }

    function test_attack_reveal_twice_or_too_late_or_bid_twice() public {
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        sealPromotion(0, bidder(1), AGENT, 30 * COIN);
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.BidTaken.selector, bidder(0)));
        sealPromotion(0, bidder(0), AGENT, 25 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
        _refuseReveal(0, bidder(0), AGENT, 20 * COIN);
        toSettling();
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, startOf(NEXT)));
        revealPromotion(0, bidder(1), AGENT, 30 * COIN);
    }

    function test_attack_promote_an_agent_that_nobody_registered() public {
        bytes32 ghost = keccak256("ghost");
        sealPromotion(0, bidder(0), ghost, 20 * COIN);
        sealPromotion(0, bidder(1), 0, 20 * COIN);
        toReveals();
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.UnknownAgent.selector, ghost));
        revealPromotion(0, bidder(0), ghost, 20 * COIN);
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.UnknownAgent.selector, bytes32(0)));
        revealPromotion(0, bidder(1), 0, 20 * COIN);
    }

    function test_attack_promote_an_agent_that_has_sunset() public {
        uint32 later = NEXT + 3;
        vm.prank(MAKER);
        registry.sunsetAgent(AGENT, uint32(commitEnds(later)));
        vm.warp(startOf(later - 1));
        bytes32 seal = promotions.sealOf(later, 0, bidder(0), AGENT, 20 * COIN, SALT);
        vm.prank(bidder(0));
        promotions.commit(later, 0, seal);
        vm.warp(commitEnds(later));
        vm.prank(bidder(0));
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.UnknownAgent.selector, AGENT));
        promotions.reveal(later, 0, AGENT, 20 * COIN, SALT);
    }

    function test_attack_reveal_without_funds_wins_nothing_and_sets_no_price() public {
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        sealPromotion(0, MALLORY, AGENT, 2 * PURSE);
        sealPromotion(0, bidder(1), AGENT, 15 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
        vm.expectRevert();
        revealPromotion(0, MALLORY, AGENT, 2 * PURSE);
        vm.prank(bidder(1));
        coin.transfer(COLD, PURSE - PROMOTION_DEPOSIT - 14 * COIN);
        vm.expectRevert();
        revealPromotion(0, bidder(1), AGENT, 15 * COIN);
        eq(promotions.slots(NEXT, 0).price, RESERVE, "the reserve still");
        vm.assertEq(promotions.slots(NEXT, 0).winner, bidder(0), "and the winner");
    }

    /// @dev A second price can be faked only by a sealed bid, blind, that has the money in hand and would have to pay if it won.
    function test_attack_shill_second_price_needs_a_sealed_bid_and_the_money() public {
        sealPromotion(0, bidder(0), AGENT, 100 * COIN);
        sealPromotion(0, MALLORY, AGENT, 90 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 100 * COIN);
        _refuseReveal(0, MALLORY, AGENT, 99 * COIN);
        vm.prank(MALLORY);
        coin.approve(address(promotions), 90 * COIN - 1);
        vm.expectRevert();
        revealPromotion(0, MALLORY, AGENT, 90 * COIN);
        vm.prank(MALLORY);
        coin.approve(address(promotions), 90 * COIN);
        revealPromotion(0, MALLORY, AGENT, 90 * COIN);
        eq(coin.balanceOf(MALLORY), PURSE, "shown, and given back");
        toSettling();
        promotions.settle(NEXT, 0);
        eq(coin.balanceOf(bidder(0)), PURSE - 90 * COIN, "never more than its own bid");
    }

    function test_attack_shill_that_overbids_pays() public {
        sealPromotion(0, bidder(0), AGENT, 100 * COIN);
        sealPromotion(0, MALLORY, AGENT, 101 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 100 * COIN);
        revealPromotion(0, MALLORY, AGENT, 101 * COIN);
        toSettling();
        promotions.settle(NEXT, 0);
        eq(coin.balanceOf(MALLORY), PURSE - 100 * COIN, "paid for being a shill");
        eq(coin.balanceOf(bidder(0)), PURSE, "who was beaten has all back");
    }

    function test_attack_shill_held_back_loses_its_deposit() public {
        sealPromotion(0, bidder(0), AGENT, 100 * COIN);
        sealPromotion(0, MALLORY, AGENT, 101 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 100 * COIN);
        toSettling();
        promotions.settle(NEXT, 0);
        eq(coin.balanceOf(MALLORY), PURSE - PROMOTION_DEPOSIT, "the deposit");
        eq(coin.balanceOf(bidder(0)), PURSE - RESERVE, "no second price");
        eq(trickster.balanceOf(Coins.SINK), PROMOTION_DEPOSIT + RESERVE - RESERVE / 5, "where nobody can");
    }

    function test_attack_best_bidder_frozen_by_the_coin_cannot_keep_others_from_beating_it() public {
        sealPromotion(0, bidder(0), AGENT, 100 * COIN);
        sealPromotion(0, bidder(1), AGENT, 110 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 100 * COIN);
        trickster.freeze(bidder(0), true);
        revealPromotion(0, bidder(1), AGENT, 110 * COIN);
        eq(promotions.unpaid(bidder(0)), 100 * COIN, "its bid waits");
        toSettling();
        promotions.settle(NEXT, 0);
        vm.prank(bidder(0));
        promotions.collectUnpaid(COLD);
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    function test_attack_winner_and_lineage_frozen_by_the_coin_cannot_keep_a_slot_from_settling() public {
        sealPromotion(0, bidder(0), AGENT, 100 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 100 * COIN);
        trickster.freeze(bidder(0), true);
        trickster.freeze(ANCESTOR, true);
        toSettling();
        promotions.settle(NEXT, 0);
        eq(promotions.unpaid(bidder(0)), 100 * COIN - RESERVE, "the rest waits");
        eq(promotions.unpaid(ANCESTOR), RESERVE / 5, "the part waits");
        eq(coin.balanceOf(address(promotions)), 100 * COIN - RESERVE + RESERVE / 5, "and is there");
    }

    function test_attack_fee_coin_is_refused_by_seal_and_by_opening() public {
        bytes32 seal = promotions.sealOf(NEXT, 0, bidder(0), AGENT, 20 * COIN, SALT);
        trickster.setFee(1);
        vm.prank(bidder(0));
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, PROMOTION_DEPOSIT, PROMOTION_DEPOSIT - 1));
        promotions.commit(NEXT, 0, seal);
        trickster.setFee(0);
        vm.prank(bidder(0));
        promotions.commit(NEXT, 0, seal);
        toReveals();
        trickster.setFee(1);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 20 * COIN, 20 * COIN - 1));
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
    }

    function test_attack_empty_seal_that_looks_opened() public {
        vm.prank(MALLORY);
        vm.expectRevert(IPromotionAuctions.BadReveal.selector);
        promotions.commit(NEXT, 0, bytes32(uint256(1)));
    }
}
