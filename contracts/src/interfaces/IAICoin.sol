// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title The coin in which everything is paid
/// @notice A plain ERC-20 with ERC-2612 permits and ERC-3009 authorizations: a fixed supply, no minter, no hooks, no fee on
/// transfer, no pause, no list of forbidden holders. The other contracts take any plain ERC-20 in its place.
interface IAICoin is IERC20 {
    /// @notice The supply does not fit the 96 bits in which the other contracts keep amounts.
    error SupplyTooLarge(uint256 supply);

    /// @notice The authorization was used or cancelled before.
    error AuthorizationSpent(address authorizer, bytes32 nonce);
    /// @notice The authorization is not valid yet, or not any more: it is between two seconds, both exclusive.
    error AuthorizationOutOfTime(uint256 validAfter, uint256 validBefore);
    /// @notice The authorizer did not sign this.
    error BadAuthorization(address authorizer);
    /// @notice Only the payee may use an authorization to receive.
    error NotPayee(address caller);

    /// @notice As in ERC-3009.
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

    /// @notice ERC-3009: moves `value` as `from` signed it. Anyone may send.
    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice ERC-3009: the same, by the payee only, so that nobody can take the transfer out of the payee's own verb.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice ERC-3009: makes an authorization void. Anyone may send.
    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice ERC-3009: whether the authorization was used or cancelled.
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);

    /// @notice Destroys `amount` of the caller's coins; the supply shrinks by it.
    function burn(uint256 amount) external;
}
