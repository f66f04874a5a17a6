// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Settlement} from "../src/Settlement.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {MoneyKit} from "./MoneyKit.sol";
import {PlainCoin} from "./tokens/PlainCoin.sol";

/// @notice What somebody would try against the settlement, each by the name of the attempt. Reentrance and strange coins are in
/// BadTokens, signatures of contracts in Deposits.
contract AttacksTest is MoneyKit {
    address private constant THIEF = address(0xBAD);

    function setUp() public {
        deployMoney();
        fund(payer, 100 * COIN);
    }

    function _lock(uint256 key, uint96 amount) private {
        settlement.lock(host, terms, 0, lockRow(key, amount));
    }

    function _lockedOf(address signer) private view returns (uint256 locked) {
        (locked,,,) = channelOf(signer, 0);
    }

    function _nothing(bytes memory rows) private {
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.redeem(host, terms, 0, rows);
    }

    // ---- races of payers against hosts

    function test_attack_promise_the_same_deposit_to_two_hosts() public {
        bytes memory promised = lockRow(PAYER_KEY, 80 * COIN);
        address second = vm.addr(7);
        settlement.lock(second, terms, 0, lockRowFor(PAYER_KEY, second, terms, 0, 70 * COIN));
        settlement.lock(host, terms, 0, promised);
        eq(_lockedOf(payer), 30 * COIN, "only what is there; the host sees it and serves no more");
        eq(freeOf(payer), 0, "and not a wei twice");
    }

    function test_attack_close_to_keep_a_promised_lock_from_landing() public {
        _lock(PAYER_KEY, COIN);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        skip(CLOSE_DELAY);
        // Even after the delay, as long as nobody has finished.
        settlement.lockAndRedeem(host, terms, 0, lockRow(PAYER_KEY, 9 * COIN), voucher(PAYER_KEY, 9 * COIN));
        settlement.finishClose(payer, host, terms, 0);
        eq(settlement.gross(terms), 9 * COIN, "paid");
    }

    function test_attack_finish_a_close_twice_or_before_its_time_or_for_another() public {
        _lock(PAYER_KEY, 10 * COIN);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.TooEarly.selector, vm.getBlockTimestamp() + CLOSE_DELAY));
        settlement.finishClose(payer, host, terms, 0);
        skip(CLOSE_DELAY);
        vm.expectRevert(ISettlement.NotClosing.selector);
        settlement.finishClose(payer, host, terms, 1);
        vm.prank(THIEF);
        settlement.finishClose(payer, host, terms, 0);
        eq(freeOf(payer), 100 * COIN, "back to the payer, whoever sends");
        vm.expectRevert(ISettlement.NotClosing.selector);
        settlement.finishClose(payer, host, terms, 0);
        eq(freeOf(payer), 100 * COIN, "once");
    }

    function test_attack_revoke_a_key_whose_vouchers_a_host_holds() public {
        openSession(10 * COIN, type(uint40).max);
        _lock(SESSION_KEY, 10 * COIN);
        vm.prank(payer);
        settlement.revoke(session);
        vm.prank(payer);
        settlement.startClose(session, host, terms, 0);
        settlement.redeem(host, terms, 0, voucher(SESSION_KEY, 10 * COIN));
        eq(settlement.gross(terms), 10 * COIN, "what was locked is the host's to redeem");
    }

    function test_attack_exit_with_what_is_locked() public {
        vm.prank(payer);
        settlement.requestExit(100 * COIN);
        skip(EXIT_DELAY);
        _lock(PAYER_KEY, 60 * COIN);
        vm.prank(payer);
        settlement.finishExit();
        eq(coin.balanceOf(payer), 40 * COIN, "the rest only");
        eq(coin.balanceOf(address(settlement)), 60 * COIN, "the lock stays");
    }

    // ---- dead channels

    function test_attack_revive_a_dead_channel() public {
        openSession(50 * COIN, type(uint40).max);
        for (uint256 i = 0; i < 2; ++i) {
            uint256 key = i == 0 ? PAYER_KEY : SESSION_KEY;
            address signer = vm.addr(key);
            _lock(key, 10 * COIN);
            settlement.redeem(host, terms, 0, voucher(key, COIN));
            vm.prank(payer);
            settlement.startClose(signer, host, terms, 0);
            skip(CLOSE_DELAY);
            settlement.finishClose(signer, host, terms, 0);
            _nothing(voucher(key, 10 * COIN));
            bytes memory more = lockRow(key, 40 * COIN);
            vm.expectRevert(ISettlement.NoProgress.selector);
            settlement.lock(host, terms, 0, more);
            vm.expectRevert(ISettlement.NotClosable.selector);
            vm.prank(payer);
            settlement.startClose(signer, host, terms, 0);
        }
        eq(freeOf(payer), 98 * COIN, "two coins were paid");
    }

    function test_attack_close_a_channel_that_never_opened() public {
        vm.expectRevert(ISettlement.NotClosable.selector);
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        vm.expectRevert(ISettlement.NotClosing.selector);
        settlement.finishClose(payer, host, terms, 0);
    }

    // ---- rows

    function test_attack_the_same_row_many_times_in_a_batch() public {
        _lock(PAYER_KEY, 50 * COIN);
        bytes memory one = voucher(PAYER_KEY, COIN);
        settlement.redeem(host, terms, 0, bytes.concat(one, one, one, one));
        eq(settlement.gross(terms), COIN, "once");
        bytes memory more = lockRow(PAYER_KEY, 60 * COIN);
        settlement.lock(host, terms, 0, bytes.concat(more, more, more));
        eq(_lockedOf(payer), 60 * COIN, "once");
    }

    function test_attack_rows_of_two_tables_in_one_batch() public {
        IAgentRegistry.Party[] memory other = table();
        other[0].bps = 9_000;
        vm.prank(MAKER);
        bytes32 terms2 = registry.agreeTerms(AGENT, other, 0, new bytes[](0));
        _lock(PAYER_KEY, 10 * COIN);
        settlement.lock(host, terms2, 0, lockRowFor(PAYER_KEY, host, terms2, 0, 10 * COIN));
        bytes memory rows = bytes.concat(voucher(PAYER_KEY, 2 * COIN), voucherFor(PAYER_KEY, host, terms2, 0, 3 * COIN));
        settlement.redeem(host, terms, 0, rows);
        eq(settlement.gross(terms), 2 * COIN, "its own");
        eq(settlement.gross(terms2), 0, "no other table's");
        settlement.redeem(host, terms2, 0, rows);
        eq(settlement.gross(terms2), 3 * COIN, "where it belongs");
    }

    function test_attack_replay_at_another_settlement_and_on_another_chain() public {
        Settlement twin = new Settlement(coin, registry, EXIT_DELAY, CLOSE_DELAY);
        coin.approve(address(twin), type(uint256).max);
        twin.depositFor(payer, 100 * COIN);
        bytes memory locks = lockRow(PAYER_KEY, 10 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        twin.lock(host, terms, 0, locks);
        bytes memory consent = sign65(SESSION_KEY, settlement.sessionConsentDigest(payer));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadConsent.selector, session));
        vm.prank(payer);
        twin.authorize(session, COIN, type(uint40).max, consent);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, locks);
        vm.chainId(here);
        settlement.lock(host, terms, 0, locks);
    }

    function test_attack_a_lock_as_voucher_and_a_voucher_as_lock() public {
        bytes memory asLock = voucher(PAYER_KEY, 50 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, asLock);
        bytes memory asVoucher = lockRow(PAYER_KEY, 50 * COIN);
        settlement.lock(host, terms, 0, asVoucher);
        _nothing(asVoucher);
    }

    /// @notice The other parity of a signature recovers a stranger, who has no channel.
    function test_attack_flip_the_parity_of_a_signature(uint96 amount) public {
        amount = uint96(bound(amount, 1, 50 * COIN));
        _lock(PAYER_KEY, 50 * COIN);
        bytes memory rows = voucher(PAYER_KEY, amount);
        rows[44] ^= 0x80;
        _nothing(rows);
        rows[44] ^= 0x80;
        settlement.redeem(host, terms, 0, rows);
    }

    /// @notice One bit anywhere in a row: the cumulative, r or s.
    function test_attack_flip_any_bit_of_a_row(uint256 bit) public {
        _lock(PAYER_KEY, 50 * COIN);
        bytes memory rows = voucher(PAYER_KEY, COIN);
        bit %= 76 * 8;
        rows[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        _nothing(rows);
        rows = lockRow(PAYER_KEY, 60 * COIN);
        rows[bit / 8] ^= bytes1(uint8(1 << (bit % 8)));
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
    }

    /// @notice Signatures that recover nobody stand for the zero address nowhere: it can have neither deposit nor channel.
    function test_attack_act_as_the_zero_address_with_garbage(bytes32 r, bytes32 s) public {
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        settlement.depositFor(address(0), COIN);
        bytes memory rows = abi.encodePacked(uint96(COIN), r, bytes32(0), uint96(COIN), bytes32(0), s, new bytes(76));
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
        _nothing(rows);
        (uint96 locked,,,,) = settlement.channels(settlement.channelId(address(0), host, terms, 0));
        eq(locked, 0, "no channel");
    }

    function test_attack_dirty_bits_in_calldata() public {
        _lock(PAYER_KEY, 50 * COIN);
        bytes memory data = abi.encodeCall(settlement.redeem, (host, terms, 0, voucher(PAYER_KEY, COIN)));
        for (uint256 i = 0; i < 2; ++i) {
            // Above the host's 20 bytes; above the epoch's four.
            uint256 place = i == 0 ? 4 + 11 : 4 + 64 + 27;
            data[place] = 0x01;
            (bool ok,) = address(settlement).call(data);
            vm.assertTrue(!ok, "refused");
            data[place] = 0x00;
        }
        (bool clean,) = address(settlement).call(data);
        vm.assertTrue(clean, "as it was, it is good");
    }

    function test_attack_dirty_bits_in_a_table() public {
        _lock(PAYER_KEY, 50 * COIN);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, COIN));
        bytes memory data = abi.encodeCall(settlement.claim, (AGENT, table(), 1));
        // Words: agent, offset, k, length, then three a party. Party 1's payee and bps.
        for (uint256 i = 0; i < 2; ++i) {
            uint256 place = i == 0 ? 4 + 32 * 7 + 5 : 4 + 32 * 9 + 20;
            data[place] = 0x01;
            (bool ok, bytes memory why) = address(settlement).call(data);
            vm.assertTrue(!ok && bytes4(why) == ISettlement.NothingDue.selector, "no such table earned anything");
            data[place] = 0x00;
        }
        (bool clean,) = address(settlement).call(data);
        vm.assertTrue(clean, "as it was, it is good");
    }

    // ---- whose key, whose money

    function test_attack_a_payer_who_becomes_a_session_key_keeps_its_own_money() public {
        fund(session, 10 * COIN);
        openSession(50 * COIN, type(uint40).max);
        _lock(SESSION_KEY, 20 * COIN);
        eq(freeOf(session), 10 * COIN, "its own deposit is not touched");
        eq(freeOf(payer), 80 * COIN, "the payer's is");
        vm.prank(session);
        settlement.requestExit(10 * COIN);
        skip(EXIT_DELAY);
        vm.prank(session);
        settlement.finishExit();
        eq(coin.balanceOf(session), 10 * COIN, "and leaves when its owner says");
    }

    function test_attack_a_session_key_as_payer_of_another_spends_only_its_own() public {
        openSession(50 * COIN, type(uint40).max);
        uint256 third = 0x777;
        bytes memory consent = sign65(third, settlement.sessionConsentDigest(session));
        vm.prank(session);
        settlement.authorize(vm.addr(third), 50 * COIN, type(uint40).max, consent);
        bytes memory rows = lockRow(third, 5 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
        fund(session, 3 * COIN);
        settlement.lock(host, terms, 0, rows);
        eq(freeOf(payer), 100 * COIN, "no authority is handed on");
        eq(_lockedOf(vm.addr(third)), 3 * COIN, "its own money only");
    }

    function test_attack_claim_a_strangers_key_or_a_payer_as_session_key() public {
        bytes memory consent = sign65(SESSION_KEY, settlement.sessionConsentDigest(payer));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadConsent.selector, session));
        vm.prank(THIEF);
        settlement.authorize(session, COIN, type(uint40).max, consent);
        vm.expectRevert();
        vm.prank(THIEF);
        settlement.authorize(payer, COIN, type(uint40).max, "");
    }

    function test_attack_spend_over_a_lowered_cap_or_after_the_expiry() public {
        openSession(50 * COIN, uint40(vm.getBlockTimestamp() + 10));
        _lock(SESSION_KEY, 20 * COIN);
        vm.prank(payer);
        settlement.authorize(session, 5 * COIN, uint40(vm.getBlockTimestamp() + 10), "");
        bytes memory rows = lockRow(SESSION_KEY, 30 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
        vm.prank(payer);
        settlement.authorize(session, 50 * COIN, uint40(vm.getBlockTimestamp() + 10), "");
        skip(10);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, rows);
    }

    function test_attack_host_and_payer_are_the_same() public {
        fund(host, 50 * COIN);
        _lock(HOST_KEY, 50 * COIN);
        settlement.redeem(host, terms, 0, voucher(HOST_KEY, 50 * COIN));
        settlement.withdraw(host);
        eq(coin.balanceOf(host), 41 * COIN, "paying oneself costs the royalty");
        eq(settlement.earned(terms), 9 * COIN, "which the table gets");
    }

    // ---- payouts and claims

    function test_attack_redirect_a_payout() public {
        _lock(PAYER_KEY, 50 * COIN);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 50 * COIN));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayout.selector, THIEF));
        vm.prank(THIEF);
        settlement.setPayout(host, THIEF);
        vm.prank(host);
        settlement.setPayout(host, address(0xC01D));
        // The hot key is stolen now: too late, and a withdrawal that the thief sends pays the cold address.
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayout.selector, host));
        vm.prank(host);
        settlement.setPayout(host, THIEF);
        vm.prank(THIEF);
        settlement.withdraw(host);
        eq(coin.balanceOf(address(0xC01D)), 41 * COIN, "cold");
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        vm.prank(address(0xC01D));
        settlement.setPayout(host, address(0));
        vm.prank(address(0xC01D));
        settlement.setPayout(host, address(0xC02D));
    }

    function test_attack_claim_from_a_longer_table_or_out_of_it() public {
        _lock(PAYER_KEY, 50 * COIN);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 50 * COIN));
        IAgentRegistry.Party[] memory long = new IAgentRegistry.Party[](40);
        for (uint256 i = 0; i < 40; ++i) {
            long[i] = IAgentRegistry.Party(THIEF, 1, 200);
        }
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.claim(AGENT, long, 39);
        eq(settlement.claimable(AGENT, long, 39), 0, "nothing");
        eq(settlement.claimed(terms, type(uint256).max), 0, "no such party");
        vm.expectRevert(abi.encodeWithSelector(ISettlement.WrongParty.selector, type(uint256).max));
        settlement.claim(AGENT, table(), type(uint256).max);
    }

    /// @notice Somebody pays wei by wei, so that each share would round to nothing.
    function test_attack_starve_a_small_share_by_dust() public {
        _lock(PAYER_KEY, COIN);
        for (uint96 i = 1; i <= 300; ++i) {
            settlement.redeem(host, terms, 0, voucher(PAYER_KEY, i));
        }
        eq(settlement.earned(terms), 54, "18 % of 300, whatever the steps");
        eq(settlement.hostBalance(host), 246, "and not a wei more to the host");
        eq(settlement.claimable(AGENT, table(), 2), 9, "300 of 1,800 of it");
    }

    // ---- terms

    function test_attack_lock_under_terms_that_nobody_agreed_or_that_have_sunset() public {
        bytes32 unknown = keccak256("nobody agreed this");
        bytes memory rows = lockRowFor(PAYER_KEY, host, unknown, 0, COIN);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.TermsClosed.selector, unknown));
        settlement.lock(host, unknown, 0, rows);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.UnknownTerms.selector, unknown));
        settlement.lockAndRedeem(host, unknown, 0, rows, rows);
        _lock(PAYER_KEY, 5 * COIN);
        uint32 moment = uint32(vm.getBlockTimestamp() + registry.NOTICE());
        vm.prank(MAKER);
        registry.sunsetTerms(terms, AGENT, moment);
        vm.warp(moment - 1);
        _lock(PAYER_KEY, 6 * COIN);
        skip(1);
        rows = lockRow(PAYER_KEY, 9 * COIN);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.TermsClosed.selector, terms));
        settlement.lock(host, terms, 0, rows);
        // The vouchers of what is locked stay good, the locks beside them are skipped.
        settlement.lockAndRedeem(host, terms, 0, rows, voucher(PAYER_KEY, 9 * COIN));
        eq(settlement.gross(terms), 6 * COIN, "what was locked in time");
        bytes memory stale = voucher(PAYER_KEY, 9 * COIN);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lockAndRedeem(host, terms, 0, rows, stale);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.RaggedRows.selector, 77));
        settlement.lockAndRedeem(host, terms, 0, new bytes(77), stale);
    }

    // ---- edges of 96 bits, on a coin whose supply is larger

    function test_attack_overflow_96_bits() public {
        deployMoneyOn(address(new PlainCoin()));
        uint96 most = type(uint96).max;
        fund(payer, most);
        vm.expectRevert();
        settlement.depositFor(payer, 1);
        settlement.lock(host, terms, 0, lockRow(PAYER_KEY, most));
        eq(_lockedOf(payer), most, "locked to the last bit");
        fund(payer, most);
        // A second channel of the same size is another word; this one is full.
        bytes memory again = lockRow(PAYER_KEY, most);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 0, again);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, most));
        eq(settlement.gross(terms), most, "redeemed to the last bit");
        settlement.lock(host, terms, 1, lockRowFor(PAYER_KEY, host, terms, 1, most));
        bytes memory rows = voucherFor(PAYER_KEY, host, terms, 1, most);
        // The host's balance would leave its bits: it withdraws first, nothing is lost.
        vm.expectRevert();
        settlement.redeem(host, terms, 1, rows);
        settlement.withdraw(host);
        settlement.redeem(host, terms, 1, rows);
        eq(settlement.gross(terms), 2 * uint256(most), "both");
    }

    function test_attack_overflow_a_session_and_a_returning_close() public {
        deployMoneyOn(address(new PlainCoin()));
        uint96 most = type(uint96).max;
        fund(payer, most);
        openSession(most, type(uint40).max);
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, most));
        fund(payer, 1);
        bytes memory one = lockRowFor(SESSION_KEY, host, terms, 1, 1);
        vm.expectRevert(ISettlement.NoProgress.selector);
        settlement.lock(host, terms, 1, one);
        vm.prank(payer);
        settlement.startClose(session, host, terms, 0);
        skip(CLOSE_DELAY);
        // The rest and the deposit together do not fit: the payer takes something out first.
        vm.expectRevert();
        settlement.finishClose(session, host, terms, 0);
        vm.prank(payer);
        settlement.requestExit(1);
        skip(EXIT_DELAY);
        vm.prank(payer);
        settlement.finishExit();
        settlement.finishClose(session, host, terms, 0);
        eq(freeOf(payer), most, "all of it");
    }
}
