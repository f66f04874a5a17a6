// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Settlement} from "../src/Settlement.sol";
import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice Deposits, exits and session keys.
contract SettlementTest is MoneyKit {
    function setUp() public {
        deployMoney();
    }

    function test_deposit_credits_the_named_payer_and_touches_no_exit() public {
        fund(payer, 10 * COIN);
        vm.prank(payer);
        settlement.requestExit(4 * COIN);
        fund(payer, COIN);
        (uint96 free, uint96 exitAmount, uint40 exitAt) = settlement.accounts(payer);
        eq(free, 11 * COIN, "free");
        eq(exitAmount, 4 * COIN, "exit stays");
        eq(exitAt, vm.getBlockTimestamp() + EXIT_DELAY, "delay stays");
        eq(coin.balanceOf(address(settlement)), 11 * COIN, "coins");
    }

    function test_delays_are_bounded_at_deployment() public {
        vm.expectRevert(ISettlement.DelayTooLong.selector);
        new Settlement(coin, registry, 90 days + 1, 0);
        vm.expectRevert(ISettlement.DelayTooLong.selector);
        new Settlement(coin, registry, 0, 90 days + 1);
    }

    function test_a_settlement_needs_a_coin_and_a_registry() public {
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        new Settlement(IERC20(address(0)), registry, 0, 0);
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        new Settlement(coin, IAgentRegistry(address(0)), 0, 0);
    }

    function test_deposit_of_nothing_or_for_nobody_reverts() public {
        vm.expectRevert(ISettlement.ZeroAmount.selector);
        settlement.deposit(0);
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        settlement.depositFor(address(0), 1);
    }

    function test_permit_deposits_and_survives_a_front_run() public {
        coin.transfer(payer, 2 * COIN);
        uint256 deadline = vm.getBlockTimestamp();
        bytes32 typehash =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 content = keccak256(abi.encode(typehash, payer, settlement, 2 * COIN, uint256(0), deadline));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", coin.DOMAIN_SEPARATOR(), content));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(PAYER_KEY, digest);
        coin.permit(payer, address(settlement), 2 * COIN, deadline, v, r, s);
        vm.prank(payer);
        settlement.depositWithPermit(2 * COIN, deadline, v, r, s);
        eq(freeOf(payer), 2 * COIN, "free");
    }

    function test_exit_waits_and_pays_what_was_asked() public {
        fund(payer, 10 * COIN);
        vm.prank(payer);
        settlement.requestExit(4 * COIN);
        skip(EXIT_DELAY - 1);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.TooEarly.selector, vm.getBlockTimestamp() + 1));
        vm.prank(payer);
        settlement.finishExit();
        skip(1);
        vm.prank(payer);
        settlement.finishExit();
        eq(coin.balanceOf(payer), 4 * COIN, "paid");
        eq(freeOf(payer), 6 * COIN, "rest");
        vm.expectRevert(ISettlement.NoExit.selector);
        vm.prank(payer);
        settlement.finishExit();
    }

    function test_a_host_lands_its_lock_during_the_exit_delay() public {
        fund(payer, 10 * COIN);
        bytes memory rows = lockRow(PAYER_KEY, 7 * COIN);
        vm.prank(payer);
        settlement.requestExit(10 * COIN);
        skip(EXIT_DELAY);
        settlement.lock(host, terms, 0, rows);
        vm.prank(payer);
        settlement.finishExit();
        eq(coin.balanceOf(payer), 3 * COIN, "only what the lock left");
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 7 * COIN));
    }

    function test_exit_can_be_called_off_and_asked_anew_from_the_start() public {
        fund(payer, 10 * COIN);
        vm.prank(payer);
        settlement.requestExit(10 * COIN);
        skip(EXIT_DELAY - 1);
        vm.prank(payer);
        settlement.requestExit(9 * COIN);
        skip(1);
        vm.expectRevert();
        vm.prank(payer);
        settlement.finishExit();
        vm.prank(payer);
        settlement.requestExit(0);
        skip(EXIT_DELAY);
        vm.expectRevert(ISettlement.NoExit.selector);
        vm.prank(payer);
        settlement.finishExit();
        vm.expectRevert(abi.encodeWithSelector(ISettlement.OverFree.selector, 10 * COIN));
        vm.prank(payer);
        settlement.requestExit(10 * COIN + 1);
    }

    function test_nobody_can_claim_a_key_without_its_consent() public {
        bytes memory consent = sign65(SESSION_KEY, settlement.sessionConsentDigest(payer));
        // A thief who saw the consent in the mempool cannot use it: it names the payer.
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadConsent.selector, session));
        vm.prank(address(0xBAD));
        settlement.authorize(session, 1, type(uint40).max, consent);
        vm.prank(payer);
        settlement.authorize(session, COIN, type(uint40).max, consent);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.KeyTaken.selector, session, payer));
        vm.prank(address(0xBAD));
        settlement.authorize(session, 1, type(uint40).max, consent);
    }

    function test_a_payer_cannot_be_its_own_session_nor_use_a_malleated_consent() public {
        bytes memory own = sign65(PAYER_KEY, settlement.sessionConsentDigest(payer));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadConsent.selector, payer));
        vm.prank(payer);
        settlement.authorize(payer, 1, 1, own);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(SESSION_KEY, settlement.sessionConsentDigest(payer));
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes memory high = abi.encodePacked(r, bytes32(order - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        vm.expectRevert();
        vm.prank(payer);
        settlement.authorize(session, 1, 1, high);
    }

    function test_zero_key_cannot_be_authorized_with_garbage() public {
        vm.expectRevert();
        vm.prank(payer);
        settlement.authorize(address(0), 1, type(uint40).max, new bytes(65));
    }

    function test_session_locks_within_its_cap_and_gets_room_back_from_a_close() public {
        fund(payer, 100 * COIN);
        openSession(10 * COIN, type(uint40).max);
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, 25 * COIN));
        (uint256 locked,,,) = channelOf(session, 0);
        eq(locked, 10 * COIN, "cut at the cap");
        settlement.redeem(host, terms, 0, voucher(SESSION_KEY, 4 * COIN));
        vm.prank(payer);
        settlement.startClose(session, host, terms, 0);
        skip(CLOSE_DELAY);
        settlement.finishClose(session, host, terms, 0);
        (,, uint96 used,) = settlement.sessions(session);
        eq(used, 4 * COIN, "only what was spent counts");
        eq(freeOf(payer), 96 * COIN, "the rest is back");
        settlement.lock(host, terms, 1, lockRowFor(SESSION_KEY, host, terms, 1, 50 * COIN));
        (locked,,,) = channelOf(session, 1);
        eq(locked, 6 * COIN, "room left");
    }

    function test_cap_and_expiry_can_change_without_a_new_consent() public {
        fund(payer, 100 * COIN);
        openSession(10 * COIN, uint40(vm.getBlockTimestamp() + 10));
        skip(10);
        bytes memory rows = lockRow(SESSION_KEY, 5 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
        vm.prank(payer);
        settlement.authorize(session, 2 * COIN, uint40(vm.getBlockTimestamp() + 1), "");
        settlement.lock(host, terms, 0, rows);
        (uint256 locked,,,) = channelOf(session, 0);
        eq(locked, 2 * COIN, "new cap");
    }

    function test_a_revoked_key_locks_no_more_but_its_vouchers_stay_good() public {
        fund(payer, 100 * COIN);
        openSession(10 * COIN, type(uint40).max);
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, 5 * COIN));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayer.selector, address(this)));
        settlement.revoke(session);
        vm.prank(payer);
        settlement.revoke(session);
        bytes memory more = lockRow(SESSION_KEY, 6 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, more);
        settlement.redeem(host, terms, 0, voucher(SESSION_KEY, 6 * COIN));
        (, uint256 redeemed,,) = channelOf(session, 0);
        eq(redeemed, 5 * COIN, "what was locked");
    }

    function test_a_key_that_becomes_a_session_keeps_its_own_channels_apart() public {
        fund(session, 10 * COIN);
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, 4 * COIN));
        fund(payer, 100 * COIN);
        openSession(50 * COIN, type(uint40).max);
        bytes memory more = lockRow(SESSION_KEY, 9 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, more);
        // The old channel is still the key's own: the payer can neither close it nor gain from it.
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayer.selector, payer));
        vm.prank(payer);
        settlement.startClose(session, host, terms, 0);
        vm.prank(session);
        settlement.startClose(session, host, terms, 0);
        skip(CLOSE_DELAY);
        settlement.finishClose(session, host, terms, 0);
        eq(freeOf(session), 10 * COIN, "own money back");
        eq(freeOf(payer), 100 * COIN, "payer untouched");
    }
}
