// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AICoin} from "../src/AICoin.sol";
import {IAICoin} from "../src/interfaces/IAICoin.sol";
import {MoneyKit} from "./MoneyKit.sol";

contract AICoinTest is MoneyKit {
    function setUp() public {
        deployMoney();
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
}
