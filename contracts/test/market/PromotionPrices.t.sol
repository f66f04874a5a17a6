// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketKit} from "./MarketKit.sol";

/// @notice The promotion auction against a plain one that sorts all bids, and what that one promises to bidders.
contract PromotionPricesTest is MarketKit {
    uint256 private constant BIDDERS = 8;
    uint96 private constant PURSE = 1_000 * COIN;

    function setUp() public {
        deployMarket();
        for (uint256 i = 0; i < BIDDERS; ++i) {
            fund(bidder(i), PURSE);
        }
    }

    /// @dev Bids in the order in which they were sealed; zero stayed sealed; some lie under the reserve, many are equal.
    function _bids(uint256 seed) private pure returns (uint256[] memory bids) {
        bids = new uint256[](bound(seed, 1, BIDDERS));
        uint256 spread = seed >> 8 & 1 == 0 ? 4 : 30;
        for (uint256 i = 0; i < bids.length; ++i) {
            uint256 word = uint256(keccak256(abi.encode(seed, i)));
            bids[i] = word % 5 == 0 ? 0 : bound(word >> 8, RESERVE / COIN - 1, RESERVE / COIN + spread) * COIN;
        }
    }

    // ---- the plain auction

    /// @dev `bids.length` when nobody reaches the reserve.
    function _winner(uint256[] memory bids) private pure returns (uint256 winner) {
        winner = bids.length;
        for (uint256 i = 0; i < bids.length; ++i) {
            if (bids[i] >= RESERVE && (winner == bids.length || bids[i] > bids[winner])) winner = i;
        }
    }

    function _price(uint256[] memory bids) private pure returns (uint256 price) {
        price = RESERVE;
        uint256 winner = _winner(bids);
        for (uint256 i = 0; i < bids.length; ++i) {
            if (i != winner && bids[i] > price) price = bids[i];
        }
    }

    function _gain(uint256[] memory bids, uint256 i, uint256 worth) private pure returns (int256) {
        return _winner(bids) == i ? int256(worth) - int256(_price(bids)) : int256(0);
    }

    // ---- the contract is that auction

    function testFuzz_who_wins_and_pays_is_what_the_plain_auction_says_however_bids_are_opened(uint256 seed) public {
        uint256[] memory bids = _bids(seed);
        for (uint256 i = 0; i < bids.length; ++i) {
            sealPromotion(0, bidder(i), AGENT, uint96(bids[i]));
        }
        toReveals();
        uint256 sealed_ = 0;
        for (uint256 n = 0; n < bids.length; ++n) {
            // Nine has no factor in common with a count that three does not divide: every bid once. Else backwards.
            uint256 i = bids.length % 3 == 0 ? bids.length - 1 - n : (seed % 9 + n * 9) % bids.length;
            if (bids[i] == 0) ++sealed_;
            else revealPromotion(0, bidder(i), AGENT, uint96(bids[i]));
        }
        toSettling();
        uint256 supply = coin.totalSupply();
        promotions.settle(NEXT, 0);
        uint256 winner = _winner(bids);
        uint256 price = winner == bids.length ? 0 : _price(bids);
        for (uint256 i = 0; i < bids.length; ++i) {
            uint256 paid = (i == winner ? price : 0) + (bids[i] == 0 ? PROMOTION_DEPOSIT : 0);
            eq(coin.balanceOf(bidder(i)), PURSE - paid, "paid");
        }
        eq(promotions.promoted(NEXT).length, winner == bids.length ? 0 : 1, "promoted");
        eq(coin.balanceOf(ANCESTOR), price * LINEAGE_BPS / 10_000, "to the lineage");
        eq(supply - coin.totalSupply(), price - coin.balanceOf(ANCESTOR) + sealed_ * PROMOTION_DEPOSIT, "destroyed");
        eq(coin.balanceOf(address(promotions)), 0, "nothing is left");
    }

    // ---- what that auction promises

    function testFuzz_bidding_what_it_is_worth_is_never_worse_than_any_other_bid(
        uint256 seed,
        uint256 who,
        uint256 worth,
        uint256 other
    ) public pure {
        uint256[] memory bids = _bids(seed);
        who = bound(who, 0, bids.length - 1);
        worth = bound(worth, 1, 40) * COIN;
        bids[who] = worth;
        int256 honest = _gain(bids, who, worth);
        vm.assertTrue(honest >= 0, "never over its worth");
        bids[who] = bound(other, 0, 40) * COIN;
        vm.assertTrue(_gain(bids, who, worth) <= honest, "no other bid gains more");
    }

    function testFuzz_attack_outbid_oneself_with_a_second_key_never_pays_less(uint256 seed, uint256 extra) public pure {
        uint256[] memory bids = _bids(seed);
        uint256[] memory more = new uint256[](bids.length + 1);
        for (uint256 i = 0; i < bids.length; ++i) {
            more[i] = bids[i];
        }
        more[bids.length] = bound(extra, 1, 40) * COIN;
        vm.assertTrue(_price(more) >= _price(bids), "price");
    }
}
