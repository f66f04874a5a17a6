// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Coins} from "../src/Coins.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {MoneyKit} from "./MoneyKit.sol";
import {CallingCoin} from "./tokens/CallingCoin.sol";
import {FalseCoin} from "./tokens/FalseCoin.sol";
import {FeeCoin} from "./tokens/FeeCoin.sol";
import {FreezingCoin} from "./tokens/FreezingCoin.sol";
import {NoReturnCoin} from "./tokens/NoReturnCoin.sol";
import {YesCoin} from "./tokens/YesCoin.sol";

/// @notice The settlement on coins that are not as they should be: nobody is credited with what did not come, and one frozen
/// holder stops nobody else.
contract BadTokensTest is MoneyKit {
    /// @dev All the money that the settlement owes in these tests: one payer, one host, one table of three.
    function _owed() private view returns (uint256 owed) {
        (uint256 locked, uint256 redeemed,,) = channelOf(payer, 0);
        owed = freeOf(payer) + freeOf(address(this)) + locked - redeemed;
        owed += settlement.hostBalance(host) + settlement.earned(terms);
        for (uint256 k = 0; k < 3; ++k) {
            owed -= settlement.claimed(terms, k);
        }
    }

    function _solvent() private view {
        eq(coin.balanceOf(address(settlement)), _owed(), "holds what it owes");
    }

    /// @dev Leaves something behind each of the ways out.
    function _trade() private {
        fund(payer, 10 * COIN);
        settlement.lockAndRedeem(host, terms, 0, lockRow(PAYER_KEY, 5 * COIN), voucher(PAYER_KEY, 2 * COIN));
        vm.prank(payer);
        settlement.requestExit(COIN);
        skip(EXIT_DELAY);
    }

    function _leave() private {
        settlement.withdraw(host);
        settlement.claim(AGENT, table(), 0);
        vm.prank(payer);
        settlement.finishExit();
    }

    function test_a_coin_that_returns_nothing_works() public {
        deployMoneyOn(address(new NoReturnCoin()));
        _trade();
        _leave();
        _solvent();
        eq(coin.balanceOf(host), 1.64 ether, "host");
        eq(coin.balanceOf(payer), COIN, "exit");
    }

    function test_a_coin_that_takes_a_fee_is_refused_on_the_way_in() public {
        deployMoneyOn(address(new FeeCoin()));
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 1_000, 990));
        settlement.deposit(1_000);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 1_000, 990));
        settlement.depositFor(payer, 1_000);
        eq(freeOf(payer) + freeOf(address(this)), 0, "no credit");
        // Where no fee falls due, what came is what was asked.
        settlement.deposit(99);
        _solvent();
    }

    function test_a_coin_that_says_false_is_refused_and_nothing_is_booked() public {
        FalseCoin liar = new FalseCoin();
        deployMoneyOn(address(liar));
        _trade();
        liar.refuse(true);
        bytes memory failed = abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(liar));
        vm.expectRevert(failed);
        settlement.deposit(COIN);
        vm.expectRevert(failed);
        settlement.withdraw(host);
        vm.expectRevert(failed);
        settlement.claim(AGENT, table(), 0);
        vm.expectRevert(failed);
        vm.prank(payer);
        settlement.finishExit();
        eq(freeOf(address(this)), 0, "no credit");
        _solvent();
        liar.refuse(false);
        _leave();
        _solvent();
    }

    function test_a_coin_that_answers_everything_and_moves_nothing_is_refused() public {
        deployMoneyOn(address(new YesCoin()));
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, COIN, 0));
        settlement.deposit(COIN);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, COIN, 0));
        settlement.depositWithPermit(COIN, type(uint256).max, 27, 0, 0);
        Signed memory nothing;
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, COIN, 0));
        depositSigned(payer, COIN, nothing);
    }

    function test_a_signed_deposit_of_a_coin_without_erc3009_credits_nobody() public {
        deployMoneyOn(address(new FreezingCoin()));
        Signed memory nothing;
        vm.expectRevert();
        depositSigned(payer, COIN, nothing);
        eq(freeOf(payer), 0, "no credit");
    }

    function test_a_frozen_holder_waits_and_nobody_else_does() public {
        FreezingCoin issuer = new FreezingCoin();
        deployMoneyOn(address(issuer));
        _trade();
        issuer.freeze(host, true);
        issuer.freeze(MAKER, true);
        vm.expectRevert(abi.encodeWithSelector(FreezingCoin.Frozen.selector, host));
        settlement.withdraw(host);
        vm.expectRevert(abi.encodeWithSelector(FreezingCoin.Frozen.selector, MAKER));
        settlement.claim(AGENT, table(), 0);
        settlement.claim(AGENT, table(), 1);
        vm.prank(payer);
        settlement.finishExit();
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, 3 * COIN));
        _solvent();
        // The host's money leaves by another address; the maker's waits for it.
        vm.prank(host);
        settlement.setPayout(host, address(0xC01D));
        settlement.withdraw(host);
        issuer.freeze(MAKER, false);
        settlement.claim(AGENT, table(), 0);
        _solvent();
    }

    /// @dev Every verb, called from inside a transfer of the coin.
    function _verbs() private view returns (bytes[] memory v) {
        v = new bytes[](13);
        v[0] = abi.encodeCall(settlement.deposit, (COIN));
        v[1] = abi.encodeCall(settlement.depositFor, (payer, COIN));
        v[2] = abi.encodeCall(settlement.depositWithPermit, (COIN, 0, 27, 0, 0));
        v[3] = abi.encodeCall(settlement.depositWithAuthorization, (address(coin), COIN, 0, 0, 0, 27, 0, 0));
        v[4] = abi.encodeCall(settlement.lock, (host, terms, 0, lockRow(PAYER_KEY, 6 * COIN)));
        v[5] = abi.encodeCall(settlement.redeem, (host, terms, 0, voucher(PAYER_KEY, 4 * COIN)));
        v[6] = abi.encodeCall(
            settlement.lockAndRedeem, (host, terms, 0, lockRow(PAYER_KEY, 7 * COIN), voucher(PAYER_KEY, 6 * COIN))
        );
        v[7] = abi.encodeCall(settlement.withdraw, (host));
        v[8] = abi.encodeCall(settlement.claim, (AGENT, table(), 0));
        ISettlement.Share[] memory shares = new ISettlement.Share[](1);
        shares[0] = ISettlement.Share(AGENT, table(), 1);
        v[9] = abi.encodeCall(settlement.claimMany, (OEM, shares));
        v[10] = abi.encodeCall(settlement.finishExit, ());
        v[11] = abi.encodeCall(settlement.requestExit, (0));
        v[12] = abi.encodeCall(settlement.finishClose, (payer, host, terms, 0));
    }

    /// @dev One outer verb that moves coins, around one inner verb.
    function _outer(uint256 i) private returns (bool ok) {
        if (i == 2) vm.prank(payer);
        bytes memory data = i == 0
            ? abi.encodeCall(settlement.deposit, (COIN))
            : i == 1
                ? abi.encodeCall(settlement.depositWithAuthorization, (address(this), COIN, 0, 0, 0, 27, 0, 0))
                : i == 2
                    ? abi.encodeCall(settlement.finishExit, ())
                    : i == 3
                        ? abi.encodeCall(settlement.withdraw, (host))
                        : abi.encodeCall(settlement.claim, (AGENT, table(), 0));
        (ok,) = address(settlement).call(data);
    }

    function _closing() private returns (CallingCoin caller) {
        caller = new CallingCoin();
        deployMoneyOn(address(caller));
        // What the coin does as a depositor of its own.
        coin.transfer(address(caller), 100 * COIN);
        vm.prank(address(caller));
        coin.approve(address(settlement), type(uint256).max);
        _trade();
        vm.prank(payer);
        settlement.startClose(payer, host, terms, 0);
        skip(CLOSE_DELAY);
    }

    function _owedWith(CallingCoin caller) private view returns (uint256) {
        return _owed() + freeOf(address(caller));
    }

    function test_reentrance_by_every_verb_inside_every_verb_that_moves_coins() public {
        for (uint256 outer = 0; outer < 5; ++outer) {
            for (uint256 inner = 0; inner < 13; ++inner) {
                CallingCoin caller = _closing();
                caller.tell(address(settlement), _verbs()[inner]);
                _outer(outer);
                eq(coin.balanceOf(address(settlement)), _owedWith(caller), "holds what it owes");
                vm.assertLe(coin.balanceOf(payer), COIN, "one exit");
                vm.assertLe(coin.balanceOf(host), 8.2 ether, "one balance");
            }
        }
    }

    function test_more_than_was_asked_is_refused_too() public {
        CallingCoin caller = _closing();
        caller.tell(address(caller), abi.encodeCall(caller.transfer, (address(settlement), 5)));
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 10, 15));
        settlement.deposit(10);
    }

    /// @notice A coin with a hook and a fee: ten go in and nine arrive, and the hook pays in the tenth, which arrives whole. Two
    /// deposits of eleven in all would stand for ten coins.
    function test_a_deposit_inside_a_deposit_cannot_make_up_for_a_fee() public {
        CallingCoin caller = _closing();
        caller.takeFee(10);
        caller.tell(address(settlement), abi.encodeCall(settlement.deposit, (1)));
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 10, 9));
        settlement.deposit(10);
        // Alone it would have come in whole: a tenth of one is nothing.
        vm.prank(address(caller));
        settlement.deposit(1);
        caller.takeFee(0);
        settlement.deposit(10);
        vm.assertTrue(caller.called() && !caller.succeeded(), "the inner deposit was refused");
        vm.assertEq(bytes32(caller.answer()), bytes32(Coins.PullInPull.selector), "by its name");
    }
}
