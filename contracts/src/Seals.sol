// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Sealed bids in one slot each
/// @notice The first 224 bits of a seal, then the order in which it came (from 1). Opening a bid wipes the seal and leaves the order.
/// @dev To open one seal in two ways takes 2^112 hashes: nobody has them before the epoch is over.
library Seals {
    uint256 private constant ORDER_BITS = 32;

    /// @notice Zero for a seal of which nothing is left, which could not be told from an opened one.
    function pack(bytes32 seal, uint32 order) internal pure returns (uint256 word) {
        uint256 kept = uint256(seal) >> ORDER_BITS;
        return kept == 0 ? 0 : kept << ORDER_BITS | order;
    }

    /// @notice Whether `seal` is the one in `word`, not opened yet.
    function holds(uint256 word, bytes32 seal) internal pure returns (bool) {
        uint256 kept = word >> ORDER_BITS;
        return kept != 0 && kept == uint256(seal) >> ORDER_BITS;
    }

    function orderOf(uint256 word) internal pure returns (uint32) {
        return uint32(word);
    }

    function isOpened(uint256 word) internal pure returns (bool) {
        return word != 0 && word >> ORDER_BITS == 0;
    }
}
