// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {MoneyKit} from "./MoneyKit.sol";
import {Wallet} from "./Wallet.sol";

/// @notice Deposits and session keys by signature, also of payers that are contracts.
contract DepositsTest is MoneyKit {
    Wallet private wallet;

    function setUp() public {
        deployMoney();
        coin.transfer(payer, 10 * COIN);
        wallet = new Wallet(payer);
        fund(address(wallet), 10 * COIN);
    }

    function _consent(address to) private view returns (bytes memory) {
        return sign65(SESSION_KEY, settlement.sessionConsentDigest(to));
    }

    function _grant(address to, uint96 cap, uint64 nonce) private view returns (bytes memory) {
        return sign65(PAYER_KEY, settlement.sessionGrantDigest(to, session, cap, type(uint40).max, nonce));
    }

    function _land(address to, uint96 cap, bytes memory consent, bytes memory grant) private {
        settlement.authorizeFor(to, session, cap, type(uint40).max, consent, grant);
    }

    function test_a_signed_deposit_goes_to_the_signer_whoever_sends_it() public {
        Signed memory a = receipt3009(PAYER_KEY, 3 * COIN, "nonce");
        vm.expectEmit(true, true, true, true, address(settlement));
        emit ISettlement.Deposited(payer, payer, 3 * COIN);
        vm.prank(host);
        depositSigned(payer, 3 * COIN, a);
        eq(freeOf(payer), 3 * COIN, "free");
        eq(coin.balanceOf(payer), 7 * COIN, "paid");
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, bytes32("nonce")));
        depositSigned(payer, 3 * COIN, a);
        eq(freeOf(payer), 3 * COIN, "once");
    }

    function test_a_signed_deposit_is_for_nobody_else_and_for_no_other_amount() public {
        Signed memory a = receipt3009(PAYER_KEY, 3 * COIN, "nonce");
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        depositSigned(address(this), 3 * COIN, a);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        depositSigned(payer, 4 * COIN, a);
        vm.expectRevert(ISettlement.ZeroAmount.selector);
        depositSigned(payer, 0, a);
        vm.expectRevert(ISettlement.ZeroAddress.selector);
        depositSigned(address(0), COIN, a);
        eq(freeOf(payer), 0, "nothing");
    }

    /// @notice A transfer to the settlement in the deposit's place brings coins and no credit: the deposit fails with it.
    function test_an_authorization_spent_by_a_transfer_credits_nobody() public {
        bytes32 typehash = keccak256(
            "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
        );
        bytes memory words =
            abi.encode(typehash, payer, settlement, uint256(COIN), uint256(0), type(uint256).max, bytes32("nonce"));
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(PAYER_KEY, keccak256(abi.encodePacked(hex"1901", coin.DOMAIN_SEPARATOR(), keccak256(words))));
        coin.transferWithAuthorization(payer, address(settlement), COIN, 0, type(uint256).max, "nonce", v, r, s);
        Signed memory a = receipt3009(PAYER_KEY, COIN, "nonce");
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, bytes32("nonce")));
        depositSigned(payer, COIN, a);
        eq(freeOf(payer), 0, "no credit");
    }

    function test_a_grant_opens_a_session_and_its_nonce_is_used_once() public {
        fund(payer, 10 * COIN);
        bytes memory grant = _grant(payer, 4 * COIN, 0);
        _land(payer, 4 * COIN, _consent(payer), grant);
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, 9 * COIN));
        eq(freeOf(payer), 6 * COIN, "capped");
        eq(settlement.grantNonce(payer), 1, "used");
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, payer));
        _land(payer, 4 * COIN, "", grant);
        // The next nonce changes cap and expiry without another consent.
        _land(payer, 5 * COIN, "", _grant(payer, 5 * COIN, 1));
        settlement.lock(host, terms, 0, lockRow(SESSION_KEY, 9 * COIN));
        eq(freeOf(payer), 5 * COIN, "raised");
    }

    function test_a_grant_needs_the_payer_and_the_key_and_the_very_words() public {
        bytes memory grant = _grant(payer, 4 * COIN, 0);
        bytes memory consent = _consent(payer);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, payer));
        _land(payer, 5 * COIN, consent, grant);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, payer));
        _land(payer, 4 * COIN, consent, consent);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, address(0)));
        _land(address(0), 4 * COIN, consent, new bytes(65));
        bytes memory forOther = _consent(address(this));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadConsent.selector, session));
        _land(payer, 4 * COIN, forOther, grant);
        // What failed used no nonce.
        _land(payer, 4 * COIN, consent, grant);
        bytes memory theirs = sign65(HOST_KEY, settlement.sessionGrantDigest(host, session, COIN, type(uint40).max, 0));
        forOther = _consent(host);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.KeyTaken.selector, session, payer));
        _land(host, COIN, forOther, theirs);
    }

    function test_a_revoked_key_does_not_come_back_by_an_older_grant() public {
        fund(payer, 10 * COIN);
        _land(payer, COIN, _consent(payer), _grant(payer, COIN, 0));
        bytes memory kept = _grant(payer, 9 * COIN, 1);
        vm.prank(payer);
        settlement.revoke(session);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, payer));
        _land(payer, 9 * COIN, "", kept);
    }

    function test_a_contract_pays_through_a_session_key_and_closes_its_channels() public {
        _land(address(wallet), 4 * COIN, _consent(address(wallet)), _grant(address(wallet), 4 * COIN, 0));
        settlement.lockAndRedeem(host, terms, 0, lockRow(SESSION_KEY, 4 * COIN), voucher(SESSION_KEY, COIN));
        eq(settlement.gross(terms), COIN, "paid");
        vm.expectRevert(abi.encodeWithSelector(ISettlement.NotPayer.selector, payer));
        vm.prank(payer);
        settlement.startClose(session, host, terms, 0);
        wallet.act(address(settlement), abi.encodeCall(settlement.startClose, (session, host, terms, 0)));
        skip(CLOSE_DELAY);
        settlement.finishClose(session, host, terms, 0);
        eq(freeOf(address(wallet)), 9 * COIN, "the rest is the wallet's");
    }

    function test_a_grant_for_one_wallet_is_nothing_for_another_of_the_same_owner() public {
        Wallet second = new Wallet(payer);
        bytes memory grant = _grant(address(wallet), COIN, 0);
        bytes memory consent = _consent(address(second));
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, address(second)));
        _land(address(second), COIN, consent, grant);
        consent = _consent(payer);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.BadGrant.selector, payer));
        _land(payer, COIN, consent, grant);
    }
}
