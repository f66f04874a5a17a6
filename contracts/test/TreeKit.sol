// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice Trees of RFC 6962 as its text defines them, by splitting at the largest power of two: another way than the
/// contract's.
abstract contract TreeKit is CourtKit {
    function receiptOf(uint256 n) internal view returns (IAuditCourt.Receipt memory r) {
        r = receipt();
        r.job = keccak256(abi.encode("job", n));
        r.issuedAt = 1_800_000_000;
    }

    function treeNode(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }

    function treeRoot(bytes32[] memory leaves, uint256 from, uint256 to) internal pure returns (bytes32) {
        if (to - from == 1) return leaves[from];
        uint256 middle = from + _split(to - from);
        return treeNode(treeRoot(leaves, from, middle), treeRoot(leaves, middle, to));
    }

    /// @dev The siblings on the way up, the leaf's first.
    function treePath(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory path) {
        bytes32[] memory down = new bytes32[](16);
        (uint256 from, uint256 to, uint256 depth) = (0, leaves.length, 0);
        while (to - from > 1) {
            uint256 middle = from + _split(to - from);
            bool left = index < middle;
            down[depth++] = left ? treeRoot(leaves, middle, to) : treeRoot(leaves, from, middle);
            if (left) to = middle;
            else from = middle;
        }
        path = new bytes32[](depth);
        for (uint256 i = 0; i < depth; ++i) {
            path[i] = down[depth - 1 - i];
        }
    }

    function _split(uint256 n) private pure returns (uint256 k) {
        k = 1;
        while (2 * k < n) k *= 2;
    }
}
