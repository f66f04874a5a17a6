// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {TransientSlot} from "@openzeppelin/contracts/utils/TransientSlot.sol";

/// @title How the contracts move coins that they do not know
/// @notice Any plain ERC-20 will do: one that returns nothing, one that cannot burn. One that takes a fee is refused when it
/// comes in, because every book here says what was asked and not what came.
library Coins {
    using SafeERC20 for IERC20;
    using TransientSlot for *;

    /// @notice `came` instead of `asked`: the coin takes a fee, or mints, on transfer.
    error ShortTransfer(uint256 asked, uint256 came);
    /// @notice The coin called back while it was being taken in, and somebody used that to pay in once more.
    error PullInPull();

    /// @dev Where coins go that cannot be burnt. Nobody has its key.
    address internal constant SINK = 0x000000000000000000000000000000000000dEaD;

    /// @dev Set while coins come in: then the difference of two balances is theirs alone.
    bytes32 private constant PULLING = keccak256("lading.coins.pulling");

    /// @notice Takes exactly `amount` from `from`, who has allowed it.
    function pull(IERC20 coin, address from, uint256 amount) internal {
        uint256 before = startPull(coin);
        coin.safeTransferFrom(from, address(this), amount);
        finishPull(coin, before, amount);
    }

    /// @notice For coins that come by another verb of the coin, between these two. Returns the balance before.
    function startPull(IERC20 coin) internal returns (uint256 before) {
        require(!PULLING.asBoolean().tload(), PullInPull());
        PULLING.asBoolean().tstore(true);
        before = coin.balanceOf(address(this));
    }

    /// @notice Reverts unless exactly `amount` came since.
    function finishPull(IERC20 coin, uint256 before, uint256 amount) internal {
        uint256 held = coin.balanceOf(address(this));
        require(held == before + amount, ShortTransfer(amount, held < before ? 0 : held - before));
        PULLING.asBoolean().tstore(false);
    }

    /// @notice Takes `amount` of this contract's coins out of the world: burns them, or sends them where nobody can.
    /// @dev Believes the balance and not the call: a coin with a fallback function answers `burn` and burns nothing.
    function destroy(IERC20 coin, uint256 amount) internal {
        if (amount == 0) return;
        uint256 before = coin.balanceOf(address(this));
        (bool done,) = address(coin).call(abi.encodeCall(ERC20Burnable.burn, (amount)));
        if (done && coin.balanceOf(address(this)) + amount <= before) return;
        coin.safeTransfer(SINK, amount);
    }
}
