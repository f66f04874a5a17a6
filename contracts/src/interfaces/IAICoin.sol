// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009, IERC3009Cancel} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The coin in which everything is paid
/// @notice A plain ERC-20 with ERC-2612 permits and ERC-3009 authorizations: a fixed supply, no minter, no hooks, no fee on
/// transfer, no pause, no list of forbidden holders. The other contracts take any plain ERC-20 in its place.
interface IAICoin is IERC20, IERC3009, IERC3009Cancel {
    /// @notice The supply does not fit the 96 bits in which the other contracts keep amounts.
    error SupplyTooLarge(uint256 supply);

    /// @notice Destroys `amount` of the caller's coins; the supply shrinks by it.
    function burn(uint256 amount) external;
}
