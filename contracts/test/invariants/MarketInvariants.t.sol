// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MarketKit} from "../market/MarketKit.sol";
import {MarketHandler} from "./MarketHandler.sol";

contract MarketInvariants is MarketKit {
    MarketHandler private handler;

    function setUp() public {
        handler = new MarketHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// @dev `windUp` is the end of a campaign, not a step of it.
    function excludeSelectors() external view returns (FuzzSelector[] memory excluded) {
        bytes4[] memory selectors = new bytes4[](1);
        selectors[0] = handler.windUp.selector;
        excluded = new FuzzSelector[](1);
        excluded[0] = FuzzSelector(address(handler), selectors);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    /// @dev One campaign checks them all after every call: five campaigns would only cost five times as much.
    function invariant_M1_to_M4() external view {
        _M1_share_auctions_conserve();
        _M2_promotion_auctions_conserve();
        _M3_leases_conserve();
        _M4_nobody_is_wronged();
    }

    /// @notice M5, at the end of every campaign: when all deadlines have passed nothing is left in any of the contracts.
    function afterInvariant() external {
        handler.windUp();
        _nothingIsStuck();
    }

    /// @notice A campaign in which nothing was sealed, opened or settled would prove nothing.
    function test_the_market_handler_reaches_every_state() external {
        handler.commitShare(0x0400_04 << 128 | 0x0300_0200_0100_0f);
        handler.commitPromotion(0x0900_0800_0700_0f);
        handler.bidLease(0x0e10_05);
        handler.trick(0);
        handler.pass(1);
        handler.revealShare(0x0002_0001_0000);
        handler.revealPromotion(0x0002_0001_0000);
        handler.trick(0x02_03);
        handler.trick(1);
        handler.trick(2);
        handler.pass(1);
        handler.settleShare(0);
        handler.settlePromotion(0);
        handler.trick(0x00_03);
        handler.collectLease(0x0500_10);
        handler.govern(4);
        handler.pass(1);
        handler.endLease(3);
        eq(handler.settledShares(), 1, "a share auction was settled");
        eq(handler.settledSlots(), 1, "a slot was settled");
        eq(handler.endedLeases(), 1, "a lease was ended");
        this.invariant_M1_to_M4();
        handler.windUp();
        _nothingIsStuck();
    }

    function _M1_share_auctions_conserve() private view {
        (uint256 held, uint256 owed) = handler.owedByShares();
        eq(held, owed, "M1: coin balance == deposits of sealed bids + unpaid");
    }

    function _M2_promotion_auctions_conserve() private view {
        (uint256 held, uint256 owed) = handler.owedByPromotions();
        eq(held, owed, "M2: coin balance == deposits of sealed bids + best bids + unpaid");
        vm.assertTrue(handler.pricesAreRight(), "M2: reserve <= price <= best bid");
    }

    function _M3_leases_conserve() private view {
        (uint256 held, uint256 owed) = handler.owedByLeases();
        eq(held, owed, "M3: coin balance == price of what is not served + bonds + unpaid");
    }

    function _M4_nobody_is_wronged() private view {
        string memory wrong = handler.wrong();
        vm.assertTrue(bytes(wrong).length == 0, wrong);
    }

    function _nothingIsStuck() private view {
        (uint256 inShares,) = handler.owedByShares();
        (uint256 inPromotions,) = handler.owedByPromotions();
        (uint256 inLeases,) = handler.owedByLeases();
        eq(inShares, 0, "M5: nothing is stuck in the share auctions");
        eq(inPromotions, 0, "M5: nothing is stuck in the promotion auctions");
        eq(inLeases, 0, "M5: nothing is stuck in the leases");
    }
}
