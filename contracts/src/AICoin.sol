// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC3009} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC3009.sol";

import {IAICoin} from "./interfaces/IAICoin.sol";

/// @title The coin in which everything is paid
/// @notice Authorizations carry random nonces, as ERC-3009 says and as wallets sign them: OpenZeppelin's other variant, with nonces
/// in sequence, would refuse those.
contract AICoin is ERC20Burnable, ERC20Permit, ERC3009, IAICoin {
    constructor(string memory name, string memory symbol, uint256 supply, address holder)
        ERC20(name, symbol)
        ERC20Permit(name)
    {
        require(supply <= type(uint96).max, SupplyTooLarge(supply));
        _mint(holder, supply);
    }

    /// @inheritdoc IAICoin
    function burn(uint256 amount) public override(ERC20Burnable, IAICoin) {
        super.burn(amount);
    }
}
