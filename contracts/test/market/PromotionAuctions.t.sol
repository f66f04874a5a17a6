// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEpochs} from "../../src/interfaces/IEpochs.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {IPromotionAuctions} from "../../src/interfaces/IPromotionAuctions.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice A promotion auction from the first seal to the index, and what each step refuses.
contract PromotionAuctionsTest is MarketKit {
    uint96 private constant PURSE = 1_000 * COIN;

    function setUp() public {
        deployMarket();
        for (uint256 i = 0; i < 4; ++i) {
            fund(bidder(i), PURSE);
        }
    }

    function test_the_highest_wins_and_pays_the_second_part_to_the_lineage_the_rest_destroyed() public {
        sealPromotion(1, bidder(0), AGENT, 20 * COIN);
        sealPromotion(1, bidder(1), PARENT, 50 * COIN);
        sealPromotion(1, bidder(2), AGENT, 80 * COIN);
        toReveals();
        revealPromotion(1, bidder(1), PARENT, 50 * COIN);
        revealPromotion(1, bidder(2), AGENT, 80 * COIN);
        revealPromotion(1, bidder(0), AGENT, 20 * COIN);
        toSettling();
        uint256 supply = coin.totalSupply();
        vm.expectEmit(true, true, true, true, address(promotions));
        emit IPromotionAuctions.Promoted(NEXT, 1, AGENT, bidder(2), 50 * COIN, 10 * COIN, 40 * COIN, 0);
        promotions.settle(NEXT, 1);
        eq(coin.balanceOf(bidder(2)), PURSE - 50 * COIN, "the winner paid the second price");
        eq(coin.balanceOf(bidder(1)), PURSE, "the second paid nothing");
        eq(coin.balanceOf(bidder(0)), PURSE, "nor the third");
        eq(coin.balanceOf(ANCESTOR), 10 * COIN, "a fifth to the parent's owner");
        eq(supply - coin.totalSupply(), 40 * COIN, "the rest is gone");
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    function test_the_index_shows_winners_by_slot() public {
        sealPromotion(0, bidder(0), PARENT, 20 * COIN);
        sealPromotion(2, bidder(1), AGENT, 20 * COIN);
        toReveals();
        eq(promotions.promoted(NEXT).length, 0, "nobody yet");
        revealPromotion(0, bidder(0), PARENT, 20 * COIN);
        revealPromotion(2, bidder(1), AGENT, 20 * COIN);
        bytes32[] memory agents = promotions.promoted(NEXT);
        eq(agents.length, 3, "up to the last slot that was won");
        vm.assertEq(agents[0], PARENT, "slot 0");
        vm.assertEq(agents[1], bytes32(0), "slot 1");
        vm.assertEq(agents[2], AGENT, "slot 2");
    }

    function test_one_bid_pays_the_reserve_and_a_root_has_no_lineage_to_pay() public {
        sealPromotion(0, bidder(0), PARENT, 20 * COIN);
        toReveals();
        revealPromotion(0, bidder(0), PARENT, 20 * COIN);
        toSettling();
        uint256 supply = coin.totalSupply();
        promotions.settle(NEXT, 0);
        eq(coin.balanceOf(bidder(0)), PURSE - RESERVE, "the reserve");
        eq(supply - coin.totalSupply(), RESERVE, "all of it destroyed");
    }

    function test_a_bid_under_the_reserve_gets_its_deposit_back_and_wins_nothing() public {
        sealPromotion(0, bidder(0), AGENT, RESERVE - 1);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, RESERVE - 1);
        eq(coin.balanceOf(bidder(0)), PURSE, "all is back");
        toSettling();
        promotions.settle(NEXT, 0);
        eq(promotions.promoted(NEXT).length, 0, "nobody");
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    function test_of_equal_bids_the_earlier_wins_and_pays_it_all() public {
        sealPromotion(0, bidder(0), PARENT, 30 * COIN);
        sealPromotion(0, bidder(1), AGENT, 30 * COIN);
        toReveals();
        revealPromotion(0, bidder(1), AGENT, 30 * COIN);
        revealPromotion(0, bidder(0), PARENT, 30 * COIN);
        toSettling();
        promotions.settle(NEXT, 0);
        vm.assertEq(promotions.slots(NEXT, 0).winner, bidder(0), "the earlier");
        eq(coin.balanceOf(bidder(0)), PURSE - 30 * COIN, "second price");
        eq(coin.balanceOf(bidder(1)), PURSE, "beaten");
    }

    function test_bids_that_stay_sealed_lose_their_deposits() public {
        sealPromotion(0, bidder(0), AGENT, 30 * COIN);
        sealPromotion(0, bidder(1), AGENT, 40 * COIN);
        toSettling();
        uint256 supply = coin.totalSupply();
        vm.expectEmit(true, true, true, true, address(promotions));
        emit IPromotionAuctions.Promoted(NEXT, 0, 0, address(0), 0, 0, 0, 2 * uint256(PROMOTION_DEPOSIT));
        promotions.settle(NEXT, 0);
        eq(supply - coin.totalSupply(), 2 * uint256(PROMOTION_DEPOSIT), "destroyed");
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    function test_bids_are_sealed_and_opened_in_their_windows_only() public {
        vm.warp(startOf(NEXT - 1) - 1);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, startOf(NEXT - 1)));
        sealPromotion(0, bidder(0), AGENT, RESERVE);
        vm.warp(commitEnds(NEXT) - 1);
        sealPromotion(0, bidder(0), AGENT, RESERVE);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, commitEnds(NEXT)));
        revealPromotion(0, bidder(0), AGENT, RESERVE);
        toReveals();
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooLate.selector, commitEnds(NEXT)));
        sealPromotion(0, bidder(1), AGENT, RESERVE);
        vm.warp(startOf(NEXT) - 1);
        revealPromotion(0, bidder(0), AGENT, RESERVE);
    }

    function test_there_are_as_many_slots_as_the_parameters_say() public {
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.NoSuchSlot.selector, SLOTS));
        sealPromotion(SLOTS, bidder(0), AGENT, RESERVE);
        sealPromotion(SLOTS - 1, bidder(0), AGENT, RESERVE);
    }

    /// @dev Deposit, reserve, slots and the lineage's part are those of the first seal.
    function test_parameters_changed_in_the_middle_are_for_other_slots() public {
        sealPromotion(2, bidder(0), AGENT, 20 * COIN);
        parameters.setMarket(IParameters.MarketParams(SHARE_DEPOSIT, 5 * PROMOTION_DEPOSIT, 5 * RESERVE, 2, 0));
        sealPromotion(2, bidder(1), AGENT, 6 * COIN);
        eq(coin.balanceOf(address(promotions)), 2 * uint256(PROMOTION_DEPOSIT), "the old deposit");
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.NoSuchSlot.selector, 2));
        promotions.commit(NEXT, 3, keccak256("seal"));
        sealPromotion(1, bidder(2), AGENT, 30 * COIN);
        eq(coin.balanceOf(address(promotions)), 7 * uint256(PROMOTION_DEPOSIT), "the new deposit");
        toReveals();
        revealPromotion(2, bidder(0), AGENT, 20 * COIN);
        revealPromotion(2, bidder(1), AGENT, 6 * COIN);
        revealPromotion(1, bidder(2), AGENT, 30 * COIN);
        toSettling();
        promotions.settle(NEXT, 2);
        promotions.settle(NEXT, 1);
        eq(coin.balanceOf(bidder(0)), PURSE - 6 * COIN, "a price under the new reserve");
        eq(coin.balanceOf(bidder(2)), PURSE - 5 * RESERVE, "the new reserve");
        eq(coin.balanceOf(ANCESTOR), 6 * COIN / 5, "the old part of one, the new part of the other");
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    function test_settling_comes_once_and_only_where_there_were_bids() public {
        sealPromotion(0, bidder(0), AGENT, RESERVE);
        vm.expectRevert(abi.encodeWithSelector(IEpochs.TooEarly.selector, startOf(NEXT)));
        promotions.settle(NEXT, 0);
        toSettling();
        promotions.settle(NEXT, 0);
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.NothingToSettle.selector, NEXT, 0));
        promotions.settle(NEXT, 0);
        vm.expectRevert(abi.encodeWithSelector(IPromotionAuctions.NothingToSettle.selector, NEXT, 1));
        promotions.settle(NEXT, 1);
    }
}
