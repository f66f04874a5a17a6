// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlainCoin} from "./PlainCoin.sol";

/// @notice Keeps one per cent of what moves, rounded down: an amount below 100 arrives whole.
contract FeeCoin is PlainCoin {
    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(this), value / 100);
    }
}
