// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice Answers every call with a true that it does not mean, `balanceOf` with a balance that never changes.
contract YesCoin {
    function balanceOf(address) external pure returns (uint256) {
        return 1e30;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        return abi.encode(true);
    }
}
