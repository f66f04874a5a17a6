// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice Locks, vouchers and closes.
contract ChannelsTest is MoneyKit {
    function setUp() public {
        deployMoney();
        fund(payer, 100 * COIN);
    }

    function _lock(uint96 amount) private {
        settlement.lock(host, terms, 0, lockRow(PAYER_KEY, amount));
    }

    function test_redeem_splits_to_the_wei() public {
        _lock(50 * COIN);
        vm.expectEmit(true, true, true, true, address(settlement));
        emit ISettlement.Redeemed(host, terms, 0, 8_200, 1_800, 1);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 10_000));
        eq(settlement.hostBalance(host), 8_200, "host");
        eq(settlement.earned(terms), 1_800, "pool");
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 10_001));
        eq(settlement.hostBalance(host), 8_201, "host gets the wei until the pool has a whole one");
        eq(settlement.earned(terms), 1_800, "pool");
    }

    function test_batching_does_not_change_the_split(uint96[5] memory steps) public {
        _lock(50 * COIN);
        uint96 sum = 0;
        for (uint256 i = 0; i < 5; ++i) {
            sum += uint96(bound(steps[i], 1, 9 * COIN));
            settlement.redeem(host, terms, 0, voucher(PAYER_KEY, sum));
        }
        eq(settlement.earned(terms), uint256(sum) * 1_800 / 10_000, "as if redeemed at once");
        eq(settlement.hostBalance(host), sum - settlement.earned(terms), "the rest is the host's");
    }

    function test_a_voucher_pays_once_and_a_lower_one_nothing() public {
        _lock(50 * COIN);
        bytes memory later = voucher(PAYER_KEY, 2 * COIN);
        bytes memory earlier = voucher(PAYER_KEY, COIN);
        settlement.redeem(host, terms, 0, later);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, bytes.concat(later, earlier));
    }

    function test_a_voucher_is_capped_at_the_lock_and_pays_the_rest_after_a_top_up() public {
        _lock(3 * COIN);
        bytes memory rows = voucher(PAYER_KEY, 5 * COIN);
        settlement.redeem(host, terms, 0, rows);
        (, uint256 redeemed,,) = channelOf(payer, 0);
        eq(redeemed, 3 * COIN, "capped");
        settlement.lockAndRedeem(host, terms, 0, lockRow(PAYER_KEY, 4 * COIN), rows);
        (, redeemed,,) = channelOf(payer, 0);
        eq(redeemed, 4 * COIN, "next lock");
    }

    function test_bad_rows_are_skipped_and_the_good_one_counts() public {
        _lock(50 * COIN);
        bytes memory forged = voucherFor(0xBAD, host, terms, 0, COIN);
        bytes memory garbage = new bytes(76);
        bytes memory otherTerms = voucherFor(PAYER_KEY, host, keccak256("other"), 0, COIN);
        bytes memory otherHost = voucherFor(PAYER_KEY, address(0xBAD), terms, 0, COIN);
        bytes memory otherEpoch = voucherFor(PAYER_KEY, host, terms, 1, COIN);
        bytes memory aLock = lockRow(PAYER_KEY, 20 * COIN);
        bytes memory rows = bytes.concat(forged, garbage, otherTerms, otherHost, otherEpoch, aLock);
        settlement.redeem(host, terms, 0, bytes.concat(rows, voucher(PAYER_KEY, COIN)));
        (, uint256 redeemed,,) = channelOf(payer, 0);
        eq(redeemed, COIN, "only the good one");
        bytes memory aVoucher = voucher(PAYER_KEY, 90 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, bytes.concat(garbage, forged, aVoucher));
    }

    function test_a_voucher_for_another_chain_or_contract_is_nothing() public {
        _lock(50 * COIN);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes memory rows = voucher(PAYER_KEY, COIN);
        vm.chainId(here);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, rows);
    }

    function test_a_high_s_is_refused() public {
        _lock(50 * COIN);
        // s just above half the order and still within 255 bits: the only high s that a compact signature can carry.
        bytes32 s = bytes32(uint256(0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0) + 1);
        bytes32 digest = settlement.voucherDigest(host, terms, 0, COIN);
        bytes32 r = bytes32(uint256(0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798));
        address ghost = ecrecover(digest, 27, r, s);
        vm.assertTrue(ghost != address(0), "the signature itself recovers somebody");
        // Give that somebody a funded channel by other means: money under its name cannot be locked without its key,
        // so the row is refused before any channel is looked at, and the batch makes no progress.
        fund(ghost, 10 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, abi.encodePacked(uint96(COIN), r, s));
        bytes32 lockHash = settlement.lockDigest(host, terms, 0, COIN);
        ghost = ecrecover(lockHash, 27, r, s);
        fund(ghost, 10 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, abi.encodePacked(uint96(COIN), r, s));
        // The same with a low s does move money: the check above is what refused it.
        bytes32 low = bytes32(uint256(s) - 1);
        ghost = ecrecover(lockHash, 27, r, low);
        fund(ghost, 10 * COIN);
        settlement.lock(host, terms, 0, abi.encodePacked(uint96(COIN), r, low));
        eq(freeOf(ghost), 9 * COIN, "low s passes");
    }

    function test_ragged_rows_and_unknown_terms_revert() public {
        _lock(50 * COIN);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.RaggedRows.selector, 77));
        settlement.redeem(host, terms, 0, new bytes(77));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.RaggedRows.selector, 75));
        settlement.lock(host, terms, 0, new bytes(75));
        bytes32 nobody = keccak256("nobody agreed this");
        bytes memory rows = voucherFor(PAYER_KEY, host, nobody, 0, COIN);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.UnknownTerms.selector, nobody));
        settlement.redeem(host, nobody, 0, rows);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, "");
    }

    function test_lock_takes_what_is_free_and_the_same_row_lands_the_rest() public {
        bytes memory rows = lockRow(PAYER_KEY, 150 * COIN);
        settlement.lock(host, terms, 0, rows);
        eq(freeOf(payer), 0, "all of it");
        fund(payer, 80 * COIN);
        settlement.lock(host, terms, 0, rows);
        (uint256 locked,,,) = channelOf(payer, 0);
        eq(locked, 150 * COIN, "the signed total, not more");
        eq(freeOf(payer), 30 * COIN, "rest");
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
    }

    function test_one_batch_carries_many_payers_and_one_payer_twice() public {
        fund(vm.addr(7), COIN);
        bytes memory locks = bytes.concat(lockRow(PAYER_KEY, COIN), lockRow(7, COIN), lockRow(PAYER_KEY, 3 * COIN));
        bytes memory paid = bytes.concat(voucher(PAYER_KEY, COIN), voucher(7, COIN), voucher(PAYER_KEY, 2 * COIN));
        settlement.lockAndRedeem(host, terms, 0, locks, paid);
        eq(settlement.gross(terms), 3 * COIN, "gross");
        eq(freeOf(payer), 97 * COIN, "payer");
    }

    function test_a_stale_lock_does_not_stop_the_vouchers() public {
        bytes memory locks = lockRow(PAYER_KEY, 5 * COIN);
        settlement.lock(host, terms, 0, locks);
        settlement.lockAndRedeem(host, terms, 0, locks, voucher(PAYER_KEY, COIN));
        eq(settlement.gross(terms), COIN, "redeemed");
    }

    function test_close_returns_the_rest_once_and_kills_the_channel() public {
        _lock(50 * COIN);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayer.selector, host));
        vm.prank(host);
        settlement.startClose(payer, host, terms, 0);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        // Redemption and locks stay open until the close is finished.
        skip(CLOSE_DELAY - 1);
        settlement.lockAndRedeem(host, terms, 0, lockRow(PAYER_KEY, 60 * COIN), voucher(PAYER_KEY, 7 * COIN));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.TooEarly.selector, vm.getBlockTimestamp() + 1));
        settlement.finishClose(payer, host, terms, 0);
        skip(1);
        settlement.finishClose(payer, host, terms, 0);
        eq(freeOf(payer), 93 * COIN, "rest is free");
        vm.expectRevert(ISettlement.NotClosing.selector);
        settlement.finishClose(payer, host, terms, 0);
        bytes memory rows = voucher(PAYER_KEY, 8 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, rows);
        rows = lockRow(PAYER_KEY, 80 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
        settlement.lock(host, terms, 1, lockRowFor(PAYER_KEY, host, terms, 1, COIN));
    }

    function test_a_close_cannot_be_armed_again() public {
        vm.expectRevert(ISettlement.NotClosable.selector);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        _lock(50 * COIN);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        vm.expectRevert(ISettlement.NotClosable.selector);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        skip(CLOSE_DELAY);
        settlement.finishClose(payer, host, terms, 0);
        vm.expectRevert(ISettlement.NotClosable.selector);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
    }

    function test_finish_needs_a_start() public {
        _lock(50 * COIN);
        skip(365 days);
        vm.expectRevert(ISettlement.NotClosing.selector);
        settlement.finishClose(payer, host, terms, 0);
    }

    function test_payout_can_be_moved_only_by_its_holder() public {
        address cold = address(0xC01D);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayout.selector, address(this)));
        settlement.setPayout(host, cold);
        vm.prank(host);
        settlement.setPayout(host, cold);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayout.selector, host));
        vm.prank(host);
        settlement.setPayout(host, host);
        _lock(50 * COIN);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 10 * COIN));
        settlement.withdraw(host);
        eq(coin.balanceOf(cold), 82 * COIN / 10, "cold address is paid");
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.withdraw(host);
    }

    function test_redeem_any_sequence_pays_the_highest_within_the_lock(uint96 lockAmount, uint96[6] memory sums)
        public
    {
        lockAmount = uint96(bound(lockAmount, 1, 100 * COIN));
        _lock(lockAmount);
        uint256 highest = 0;
        bytes memory rows;
        for (uint256 i = 0; i < 6; ++i) {
            sums[i] = uint96(bound(sums[i], 1, 120 * COIN));
            if (sums[i] > highest) highest = sums[i];
            rows = bytes.concat(rows, voucher(PAYER_KEY, sums[i]));
        }
        settlement.redeem(host, terms, 0, rows);
        uint256 expected = highest < lockAmount ? highest : lockAmount;
        (, uint256 redeemed,,) = channelOf(payer, 0);
        eq(redeemed, expected, "min(highest, lock)");
        eq(settlement.hostBalance(host) + settlement.earned(terms), expected, "conserved");
    }
}
