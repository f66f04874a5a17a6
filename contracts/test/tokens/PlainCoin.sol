// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A coin without anything but ERC-20, and with a supply that fits no 96 bits.
contract PlainCoin is ERC20 {
    constructor() ERC20("Plain", "PLN") {
        _mint(msg.sender, type(uint128).max);
    }
}
