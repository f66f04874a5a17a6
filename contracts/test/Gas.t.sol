// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice What each verb costs as a transaction of its own, intrinsic gas and calldata included; `make bench` prints it.
/// @dev The bounds here are the project's where it set one, and guard against getting dearer elsewhere; `withdraw` alone is above
/// its budget of 38,000 (README: what it costs).
/// Isolation makes forge run every call as a transaction, so that slots are cold and refunds are real.
/// forge-config: default.isolate = true
contract GasTest is MoneyKit {
    event log_named_uint(string name, uint256 value);

    uint256 private constant FIRST_KEY = 0x10000;

    function setUp() public {
        deployMoney();
    }

    /// @dev Slots are non-zero before the measured call, as in every batch but a host's first.
    function _redeem(uint256 k, string memory name) private returns (uint256 perVoucher) {
        uint96 deposit = 10 * COIN;
        bytes memory locks;
        bytes memory firsts;
        bytes memory rows;
        for (uint256 i = 0; i < k; ++i) {
            uint256 key = FIRST_KEY + i;
            fund(vm.addr(key), deposit);
            locks = bytes.concat(locks, lockRow(key, deposit));
            firsts = bytes.concat(firsts, voucher(key, COIN / 1_000));
            rows = bytes.concat(rows, voucher(key, uint96(COIN / 100 + uint256(keccak256(abi.encode(i))) % 1e15)));
        }
        settlement.lockAndRedeem(host, terms, 0, locks, firsts);
        settlement.redeem(host, terms, 0, rows);
        perVoucher = _spent() / k;
        emit log_named_uint(name, perVoucher);
    }

    /// @dev The receipt's gasUsed: refunds are taken off, at most a fifth.
    function _spent() private view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }

    function test_gas_redeem_1() public {
        vm.assertLe(_redeem(1, "gas_per_voucher_k1"), 47_700, "K=1");
    }

    function test_gas_redeem_10() public {
        vm.assertLe(_redeem(10, "gas_per_voucher_k10"), 13_700, "K=10");
    }

    function test_gas_redeem_50() public {
        vm.assertLe(_redeem(50, "gas_per_voucher_k50"), 10_800, "K=50");
    }

    function test_gas_redeem_200() public {
        vm.assertLe(_redeem(200, "gas_per_voucher_k200"), 10_300, "K=200");
    }

    function _locks(uint96 amount, string memory name) private returns (uint256 perLock) {
        bytes memory rows;
        for (uint256 i = 0; i < 25; ++i) {
            rows = bytes.concat(rows, lockRow(FIRST_KEY + i, amount));
        }
        settlement.lock(host, terms, 0, rows);
        perLock = _spent() / 25;
        emit log_named_uint(name, perLock);
    }

    function test_gas_lock_first_and_top_up() public {
        for (uint256 i = 0; i < 25; ++i) {
            fund(vm.addr(FIRST_KEY + i), 10 * COIN);
        }
        vm.assertLe(_locks(COIN, "gas_lock_first"), 38_000, "first");
        vm.assertLe(_locks(2 * COIN, "gas_lock_top_up"), 21_000, "top-up");
    }

    function test_gas_lock_by_session() public {
        fund(payer, 100 * COIN);
        for (uint256 i = 0; i < 25; ++i) {
            address key = vm.addr(FIRST_KEY + i);
            bytes memory consent = sign65(FIRST_KEY + i, settlement.sessionConsentDigest(payer));
            vm.prank(payer);
            settlement.authorize(key, 10 * COIN, type(uint40).max, consent);
        }
        vm.assertLe(_locks(COIN, "gas_lock_first_by_session"), 38_600, "first");
        vm.assertLe(_locks(2 * COIN, "gas_lock_top_up_by_session"), 21_600, "top-up");
    }

    function test_gas_claim_and_withdraw() public {
        fund(payer, 100 * COIN);
        IAgentRegistry.Party[] memory five = new IAgentRegistry.Party[](5);
        for (uint256 i = 0; i < 5; ++i) {
            address payee = vm.addr(FIRST_KEY + i);
            five[i] = IAgentRegistry.Party(payee, uint8(i % 4 + 1), 300);
            vm.prank(payee);
            registry.setPolicy(uint8(i % 4 + 1), 300);
            coin.transfer(payee, 1);
        }
        vm.prank(MAKER);
        bytes32 table5 = registry.agreeTerms(AGENT, five, 0, new bytes[](0));
        coin.transfer(host, 1);
        settlement.lock(host, table5, 0, lockRowFor(PAYER_KEY, host, table5, 0, 50 * COIN));
        settlement.redeem(host, table5, 0, voucherFor(PAYER_KEY, host, table5, 0, COIN));
        settlement.claim(AGENT, five, 1);
        settlement.withdraw(host);
        settlement.redeem(host, table5, 0, voucherFor(PAYER_KEY, host, table5, 0, 2 * COIN));
        settlement.claim(AGENT, five, 1);
        _report("gas_claim", 52_000);
        settlement.withdraw(host);
        _report("gas_withdraw", 39_900);
        vm.prank(host);
        settlement.setPayout(host, address(0xC01D));
        coin.transfer(address(0xC01D), 1);
        settlement.redeem(host, table5, 0, voucherFor(PAYER_KEY, host, table5, 0, 3 * COIN));
        settlement.withdraw(host);
        _report("gas_withdraw_to_payout", 44_700);
        vm.prank(payer);
        settlement.startClose(payer, host, table5, 0);
        _report("gas_start_close", 32_000);
        skip(CLOSE_DELAY);
        settlement.finishClose(payer, host, table5, 0);
        _report("gas_finish_close", 37_500);
    }

    function _report(string memory name, uint256 bar) private {
        uint256 spent = _spent();
        emit log_named_uint(name, spent);
        vm.assertLe(spent, bar, name);
    }
}
