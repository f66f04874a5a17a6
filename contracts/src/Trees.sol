// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Paths through the trees of RFC 6962
/// @notice sha256, nodes prefixed with 0x01, an odd node carried up. The number of leaves fixes the shape, so a path has exactly
/// one length and no inner node passes for a leaf.
library Trees {
    /// @notice Whether `path`, the siblings from the leaf up, leads from leaf `index` of `count` to `root`.
    function leads(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata path, bytes32 root)
        internal
        pure
        returns (bool)
    {
        (bool fits, bytes32 node) = climb(leaf, index, count, path);
        return fits && node == root;
    }

    /// @notice The root to which `path` leads from leaf `index` of `count`, if it has the one length that fits this place.
    function climb(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata path)
        internal
        pure
        returns (bool fits, bytes32 node)
    {
        if (index >= count) return (false, 0);
        node = leaf;
        uint256 used = 0;
        for (uint256 width = count; width > 1; width = (width + 1) / 2) {
            bool carried = index == width - 1 && width % 2 == 1;
            if (!carried) {
                if (used == path.length) return (false, 0);
                bytes32 sibling = path[used++];
                node = index % 2 == 0 ? _node(node, sibling) : _node(sibling, node);
            }
            index /= 2;
        }
        fits = used == path.length;
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }
}
