// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeases} from "../../src/interfaces/ILeases.sol";
import {ISettlement} from "../../src/interfaces/ISettlement.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice What each verb of the market costs as a transaction of its own, intrinsic gas and calldata included.
/// @dev The bounds guard against getting dearer. Balances and counters are non-zero before what is measured, as in any but a first use.
/// Isolation makes forge run every call as a transaction, so that slots are cold and refunds are real.
/// forge-config: default.isolate = true
contract GasMarketTest is MarketKit {
    event log_named_uint(string name, uint256 value);

    function setUp() public {
        deployMarket();
        for (uint256 i = 0; i < 10; ++i) {
            fund(bidder(i), 1_000 * COIN);
        }
        coin.transfer(address(shares), 1);
        coin.transfer(address(promotions), 1);
        coin.transfer(address(leases), 1);
    }

    /// @dev The receipt's gasUsed: refunds are taken off, at most a fifth.
    function _report(string memory name, uint256 bar) private {
        uint256 spent = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(name, spent);
        vm.assertLe(spent, bar, name);
    }

    function test_gas_share_auction() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        _report("gas_share_open", 144_700);
        for (uint256 i = 0; i < 4; ++i) {
            sealShare(id, bidder(i), uint16(400 - i));
        }
        _report("gas_share_commit", 77_200);
        toReveals();
        revealShare(id, bidder(0), 400);
        revealShare(id, bidder(1), 399);
        _report("gas_share_reveal", 86_100);
        revealShare(id, bidder(2), 398);
        revealShare(id, bidder(3), 397);
        _report("gas_share_reveal_in_place_of_a_worse_one", 74_400);
        toSettling();
        shares.settle(id, baseTable());
        _report("gas_share_settle_2_seats", 125_700);
    }

    function test_gas_share_auction_of_eight_seats() public {
        bytes32 id = openShares(CURATORS, 8, 400);
        for (uint256 i = 0; i < 10; ++i) {
            sealShare(id, bidder(i), uint16(400 - i));
        }
        toReveals();
        for (uint256 i = 0; i < 9; ++i) {
            revealShare(id, bidder(i), uint16(400 - i));
        }
        revealShare(id, bidder(9), 391);
        _report("gas_share_reveal_among_eight_seats", 89_600);
        toSettling();
        shares.settle(id, baseTable());
        _report("gas_share_settle_8_seats", 173_800);
    }

    function test_gas_promotion_auction() public {
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        _report("gas_promotion_commit_first_of_slot", 130_000);
        sealPromotion(0, bidder(1), AGENT, 30 * COIN);
        sealPromotion(0, bidder(2), AGENT, 25 * COIN);
        sealPromotion(0, bidder(3), AGENT, 10 * COIN);
        _report("gas_promotion_commit", 80_000);
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
        _report("gas_promotion_reveal_first_of_slot", 126_400);
        revealPromotion(0, bidder(1), AGENT, 30 * COIN);
        _report("gas_promotion_reveal_best", 97_500);
        revealPromotion(0, bidder(2), AGENT, 25 * COIN);
        _report("gas_promotion_reveal_second", 88_700);
        revealPromotion(0, bidder(3), AGENT, 10 * COIN);
        _report("gas_promotion_reveal_loser", 75_700);
        toSettling();
        coin.transfer(ANCESTOR, 1);
        promotions.settle(NEXT, 0);
        _report("gas_promotion_settle", 94_400);
    }

    function test_gas_lease() public {
        running();
        vm.prank(tenant);
        bytes32 id = leases.bid(request());
        _report("gas_lease_bid", 153_000);
        vm.prank(host);
        leases.accept(id, host);
        _report("gas_lease_accept", 66_300);
        skip(1 hours + 600);
        bytes memory signature = signServed(id, 600);
        leases.collect(id, 600, signature);
        _report("gas_lease_collect", 65_700);
        skip(600);
        signature = signServed(id, 1_200);
        leases.collect(id, 1_200, signature);
        _report("gas_lease_collect_again", 65_700);
        vm.prank(tenant);
        leases.vacate(id);
        _report("gas_lease_vacate", 31_600);
        skip(1 days);
        leases.finish(id);
        _report("gas_lease_finish_after_vacate", 73_600);
    }

    function test_gas_offer() public {
        ISettlement.Offer memory offer;
        (offer.host, offer.agent, offer.priceOut) = (host, AGENT, 15);
        (offer.sequence, offer.expires) = (7, uint64(vm.getBlockTimestamp() + 60));
        bytes memory signature = sign65(HOST_KEY, settlement.offerDigest(offer));
        book.publish(offer, signature);
        _report("gas_offer_publish", 44_000);
        vm.prank(host);
        book.raiseFloor(1);
        vm.prank(host);
        book.raiseFloor(2);
        _report("gas_offer_raise_floor", 28_900);
    }
}
