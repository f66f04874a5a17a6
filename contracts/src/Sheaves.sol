// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Trees} from "./Trees.sol";

/// @title One signature under many receipts
/// @notice A host signs a receipt alone, in 65 bytes, or binds it with others: then it signs the root of the tree of their
/// digests and how many they are, and each carries 65 bytes || uint16 index || uint16 count || the siblings from the leaf up.
/// A digest is keccak256 of bytes that begin with 0x1901, an inner node sha256 of bytes that begin with 0x01, and the signed
/// count fixes how long each leaf's path is: neither passes for the other.
library Sheaves {
    bytes32 internal constant TYPEHASH = keccak256("Sheaf(bytes32 root,uint32 count)");
    uint256 private constant ALONE = 65;
    uint256 private constant HEAD = 69;
    uint256 private constant MOST = 1024;

    /// @notice Whether a receipt's signature may have this length.
    function fits(uint256 length) internal pure returns (bool) {
        // Ten siblings lead up a tree of 1,024.
        return length == ALONE || (length > HEAD && (length - HEAD) % 32 == 0 && length <= HEAD + 320);
    }

    /// @notice The root and the number of receipts that are signed in place of the one with this digest; 0 and 0 where the
    /// signature is none of a sheaf.
    function root(bytes32 digest, bytes calldata signature) internal pure returns (bytes32 node, uint256 count) {
        if (signature.length <= HEAD || !fits(signature.length)) return (0, 0);
        uint256 index = uint16(bytes2(signature[ALONE:ALONE + 2]));
        count = uint16(bytes2(signature[ALONE + 2:HEAD]));
        if (count > MOST) return (0, 0);
        bytes32[] calldata path;
        // Words lie one after the other in both, at any offset.
        assembly ("memory-safe") {
            path.offset := add(signature.offset, HEAD)
            path.length := div(sub(signature.length, HEAD), 32)
        }
        bool whole;
        (whole, node) = Trees.climb(digest, index, count, path);
        if (!whole) return (0, 0);
    }

    /// @notice Whether `signer` signed `digest` by the signature's first 65 bytes.
    function isFrom(address signer, bytes32 digest, bytes calldata signature) internal pure returns (bool) {
        (address recovered, ECDSA.RecoverError fault,) = ECDSA.tryRecoverCalldata(digest, signature[:ALONE]);
        return fault == ECDSA.RecoverError.NoError && recovered == signer;
    }
}
