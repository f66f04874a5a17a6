// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {AICoin} from "../src/AICoin.sol";
import {IAICoin} from "../src/interfaces/IAICoin.sol";
import {MoneyKit} from "./MoneyKit.sol";

contract AICoinTest is MoneyKit {
    string private constant FIELDS =
        "(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";
    bytes32 private constant NONCE = keccak256("a random nonce");
    address private constant SHOP = address(0x5409);

    uint256 private start;

    function setUp() public {
        deployMoney();
        coin.transfer(payer, 10 * COIN);
        start = vm.getBlockTimestamp();
    }

    function _digest(bytes memory words) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", coin.DOMAIN_SEPARATOR(), keccak256(words)));
    }

    /// @dev Of COIN from the payer to the shop, valid from the next second for nine seconds.
    function _sign(string memory verb, uint256 key) private view returns (Signed memory a) {
        bytes32 typehash = keccak256(bytes(string.concat(verb, FIELDS)));
        (a.validAfter, a.validBefore, a.nonce) = (start, start + 10, NONCE);
        (a.v, a.r, a.s) =
            vm.sign(key, _digest(abi.encode(typehash, payer, SHOP, uint256(COIN), a.validAfter, a.validBefore, NONCE)));
    }

    function _transfer(Signed memory a, address to, uint256 value) private {
        coin.transferWithAuthorization(payer, to, value, a.validAfter, a.validBefore, a.nonce, a.v, a.r, a.s);
    }

    function _receive(Signed memory a) private {
        coin.receiveWithAuthorization(payer, SHOP, COIN, a.validAfter, a.validBefore, a.nonce, a.v, a.r, a.s);
    }

    function test_the_whole_supply_goes_to_the_holder_and_must_fit_96_bits() public {
        AICoin fresh = new AICoin("A", "B", type(uint96).max, host);
        eq(fresh.balanceOf(host), type(uint96).max, "all of it");
        eq(fresh.decimals(), 18, "decimals");
        uint256 tooMuch = uint256(type(uint96).max) + 1;
        vm.expectRevert(abi.encodeWithSelector(IAICoin.SupplyTooLarge.selector, tooMuch));
        new AICoin("A", "B", tooMuch, host);
    }

    function test_burning_shrinks_the_supply() public {
        uint256 supply = coin.totalSupply();
        coin.burn(5);
        eq(coin.totalSupply(), supply - 5, "burnt");
    }

    function test_an_authorization_moves_coins_once_whoever_sends_it() public {
        Signed memory a = _sign("TransferWithAuthorization", PAYER_KEY);
        skip(1);
        vm.prank(host);
        _transfer(a, SHOP, COIN);
        eq(coin.balanceOf(SHOP), COIN, "moved");
        vm.assertTrue(coin.authorizationState(payer, NONCE), "spent");
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, NONCE));
        _transfer(a, SHOP, COIN);
    }

    function test_an_authorization_is_good_between_two_seconds_both_exclusive() public {
        Signed memory a = _sign("TransferWithAuthorization", PAYER_KEY);
        bytes memory late =
            abi.encodeWithSelector(ERC3009.ERC3009InvalidAuthorizationTime.selector, a.validAfter, a.validBefore);
        vm.expectRevert(late);
        _transfer(a, SHOP, COIN);
        skip(10);
        vm.expectRevert(late);
        _transfer(a, SHOP, COIN);
        vm.warp(a.validBefore - 1);
        _transfer(a, SHOP, COIN);
    }

    function test_an_authorization_of_another_key_or_for_something_else_is_nothing() public {
        skip(1);
        Signed memory a = _sign("TransferWithAuthorization", SESSION_KEY);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _transfer(a, SHOP, COIN);
        a = _sign("TransferWithAuthorization", PAYER_KEY);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _transfer(a, SHOP, COIN + 1);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _transfer(a, address(this), COIN);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _transfer(a, SHOP, COIN);
        vm.chainId(here);
        _transfer(a, SHOP, COIN);
    }

    function test_a_malleated_authorization_is_refused() public {
        Signed memory a = _sign("TransferWithAuthorization", PAYER_KEY);
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        (a.v, a.s) = (a.v ^ 7, bytes32(order - uint256(a.s)));
        skip(1);
        vm.expectRevert();
        _transfer(a, SHOP, COIN);
    }

    function test_only_the_payee_receives_and_nobody_turns_that_into_a_transfer() public {
        Signed memory a = _sign("ReceiveWithAuthorization", PAYER_KEY);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InvalidReceiver.selector, SHOP));
        _receive(a);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        _transfer(a, SHOP, COIN);
        vm.prank(SHOP);
        _receive(a);
        eq(coin.balanceOf(SHOP), COIN, "received");
    }

    function test_a_cancelled_authorization_is_void_and_only_its_signer_cancels() public {
        bytes32 digest =
            _digest(abi.encode(keccak256("CancelAuthorization(address authorizer,bytes32 nonce)"), payer, NONCE));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(SESSION_KEY, digest);
        vm.expectRevert(ERC3009.ERC3009InvalidSignature.selector);
        coin.cancelAuthorization(payer, NONCE, v, r, s);
        (v, r, s) = vm.sign(PAYER_KEY, digest);
        coin.cancelAuthorization(payer, NONCE, v, r, s);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, NONCE));
        coin.cancelAuthorization(payer, NONCE, v, r, s);
        Signed memory a = _sign("TransferWithAuthorization", PAYER_KEY);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(ERC3009.ERC3009UsedAuthorization.selector, payer, NONCE));
        _transfer(a, SHOP, COIN);
    }
}
