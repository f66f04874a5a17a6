// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The coin in which everything is paid
/// @notice A plain ERC-20 with ERC-2612 permits: a fixed supply, no minter, no hooks, no fee on transfer, no pause, no list
/// of forbidden holders. The other contracts rely on exactly that: a transfer of `x` moves `x` and calls nobody.
interface IAICoin is IERC20 {
    /// @notice The supply does not fit the 96 bits in which the other contracts keep amounts.
    error SupplyTooLarge(uint256 supply);

    /// @notice Destroys `amount` of the caller's coins; the supply shrinks by it.
    function burn(uint256 amount) external;
}
