// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlainCoin} from "./PlainCoin.sol";

/// @notice Its issuer freezes holders, like most stablecoins' does.
contract FreezingCoin is PlainCoin {
    error Frozen(address holder);

    mapping(address holder => bool) public frozen;

    function freeze(address holder, bool yes) external {
        frozen[holder] = yes;
    }

    function _update(address from, address to, uint256 value) internal override {
        require(!frozen[from], Frozen(from));
        require(!frozen[to], Frozen(to));
        super._update(from, to, value);
    }
}
