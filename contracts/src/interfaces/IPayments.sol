// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Payments that no payee can block
interface IPayments {
    /// @notice Nothing waits for the caller.
    error NothingUnpaid(address caller);

    /// @notice The coin refused to pay `payee`: the amount waits until `payee` collects it to an address that the coin accepts.
    event Unpaid(address indexed payee, uint256 amount);
    /// @notice What waited for `payee` went to `to`.
    event UnpaidCollected(address indexed payee, address indexed to, uint256 amount);

    /// @notice Pays what waits for the caller to `to`.
    function collectUnpaid(address to) external;

    /// @notice What waits for `payee` because the coin refused to pay it.
    function unpaid(address payee) external view returns (uint256);
}
