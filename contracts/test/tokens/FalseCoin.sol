// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlainCoin} from "./PlainCoin.sol";

/// @notice Answers false where others revert, and moves nothing then.
contract FalseCoin is PlainCoin {
    bool public refuses;

    function refuse(bool yes) external {
        refuses = yes;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transferFrom(from, to, amount);
    }
}
