// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IPayments} from "./interfaces/IPayments.sol";

/// @title Payments that no payee can block
/// @notice Pays at once where the coin lets it. Where it does not (a stablecoin that froze the payee), the amount waits for its
/// owner here, and everybody else's money moves on.
abstract contract Payments is IPayments {
    using SafeERC20 for IERC20;

    IERC20 public immutable coin;
    /// @inheritdoc IPayments
    mapping(address payee => uint256) public unpaid;

    constructor(IERC20 coin_) {
        coin = coin_;
    }

    /// @inheritdoc IPayments
    function collectUnpaid(address to) external {
        uint256 amount = unpaid[msg.sender];
        require(amount != 0, NothingUnpaid(msg.sender));
        unpaid[msg.sender] = 0;
        emit UnpaidCollected(msg.sender, to, amount);
        coin.safeTransfer(to, amount);
    }

    /// @dev Books first: call it after everything else is written.
    function _send(address to, uint256 amount) internal {
        if (amount == 0) return;
        if (coin.trySafeTransfer(to, amount)) return;
        unpaid[to] += amount;
        emit Unpaid(to, amount);
    }
}
