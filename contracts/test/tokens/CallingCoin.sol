// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlainCoin} from "./PlainCoin.sol";

/// @notice Calls whom it was told before it moves anything, like an ERC-777 the sender's hook; takes a fee if told.
contract CallingCoin is PlainCoin {
    address private hook;
    bytes private call_;
    bool private calling;
    uint256 private feePercent;

    bool public called;
    bool public succeeded;
    bytes public answer;

    function tell(address to, bytes calldata data) external {
        (hook, call_, called) = (to, data, false);
    }

    function takeFee(uint256 percent) external {
        feePercent = percent;
    }

    /// @notice As in ERC-3009, believing every signature.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256,
        uint256,
        bytes32,
        uint8,
        bytes32,
        bytes32
    ) external {
        _transfer(from, to, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (hook != address(0) && !calling) {
            calling = true;
            (succeeded, answer) = hook.call(call_);
            (called, calling) = (true, false);
        }
        super._update(from, to, value);
        if (from != address(0) && feePercent != 0) super._update(to, address(this), value * feePercent / 100);
    }
}
