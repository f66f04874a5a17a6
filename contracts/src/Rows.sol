// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";

/// @title Packed signed rows: uint96 cumulative || r || yParityAndS (EIP-2098), 76 bytes each
/// @notice Owns the one hot loop of the contracts. A row names neither signer nor channel: both follow from the signature,
/// so a forged row can only ever reach a channel that does not exist. Assembly because the loop is what every
/// payment on the network costs: hashing in place saves a fourth of the gas that is not storage and ecrecover.
library Rows {
    uint256 internal constant SIZE = 76;
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// @notice Reverts unless the calldata holds whole rows.
    function check(bytes calldata rows) internal pure {
        require(rows.length % SIZE == 0, ISettlement.RaggedRows(rows.length));
    }

    /// @notice Where the rows begin and end in the calldata.
    function span(bytes calldata rows) internal pure returns (uint256 start, uint256 end) {
        assembly ("memory-safe") {
            start := rows.offset
            end := add(start, rows.length)
        }
    }

    /// @notice keccak256(abi.encode(agent, parties)), hashed as it came: a party takes three words. Words with dirty upper bits
    /// give a hash that nobody ever agreed.
    function tableHash(bytes32 agent, IAgentRegistry.Party[] calldata parties) internal pure returns (bytes32 id) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            let size := mul(parties.length, 0x60)
            mstore(at, agent)
            mstore(add(at, 0x20), 0x40)
            mstore(add(at, 0x40), parties.length)
            calldatacopy(add(at, 0x60), parties.offset, size)
            id := keccak256(at, add(size, 0x60))
        }
    }

    /// @notice Lays out in memory everything that the rows of a batch share, and returns where.
    /// +0x000 typehash, host, terms, epoch, [cumulative]     the struct hash is over 160 bytes
    /// +0x0a0 [signer], host, terms, epoch                   the channel id is over 128 bytes
    /// +0x120 0x1901 (2 bytes), domain, [struct hash]        the digest is over 66 bytes
    /// +0x180 [digest], [v], [r], [s]                        the call to ecrecover
    function prepare(bytes32 domain, bytes32 typehash, address host, bytes32 terms, uint32 epoch)
        internal
        pure
        returns (uint256 form)
    {
        assembly ("memory-safe") {
            form := mload(0x40)
            mstore(0x40, add(form, 0x200))
            host := shr(96, shl(96, host))
            epoch := and(epoch, 0xffffffff)
            mstore(form, typehash)
            mstore(add(form, 0x20), host)
            mstore(add(form, 0x40), terms)
            mstore(add(form, 0x60), epoch)
            mstore(add(form, 0xc0), host)
            mstore(add(form, 0xe0), terms)
            mstore(add(form, 0x100), epoch)
            mstore(add(form, 0x120), shl(240, 0x1901))
            mstore(add(form, 0x122), domain)
        }
    }

    /// @notice The row at calldata position `row`: who signed it (zero if nobody validly did), its cumulative, and the signer's
    /// channel.
    function read(uint256 form, uint256 row) internal view returns (address signer, uint256 cumulative, bytes32 id) {
        assembly ("memory-safe") {
            cumulative := shr(160, calldataload(row))
            mstore(add(form, 0x80), cumulative)
            mstore(add(form, 0x142), keccak256(form, 0xa0))
            mstore(add(form, 0x180), keccak256(add(form, 0x120), 0x42))
            let vs := calldataload(add(row, 44))
            let s := shr(1, shl(1, vs))
            mstore(add(form, 0x1a0), add(27, shr(255, vs)))
            mstore(add(form, 0x1c0), calldataload(add(row, 12)))
            mstore(add(form, 0x1e0), s)
            // ecrecover writes nothing for a bad signature: the signer's word stays zero.
            mstore(add(form, 0xa0), 0)
            pop(staticcall(gas(), 1, add(form, 0x180), 0x80, add(form, 0xa0), 0x20))
            id := keccak256(add(form, 0xa0), 0x80)
            signer := mul(mload(add(form, 0xa0)), iszero(gt(s, HALF_ORDER)))
        }
    }

    /// @notice Redeems every row against the channels in the mapping at `slot`: min(cumulative, locked) - redeemed, if more
    /// than nothing. Returns the sum, and how many rows added to it.
    /// @dev The body of `read` again, inline: a call and its stack cost 3 % of a voucher. A channel's word is
    /// locked (96 bits) | redeemed (96 bits) << 96 | flags. redeemed never exceeds locked, so the addition stays in its bits.
    function redeem(uint256 form, bytes calldata rows, uint256 slot) internal returns (uint256 total, uint256 moved) {
        assembly ("memory-safe") {
            let signerAt := add(form, 0xa0)
            let callAt := add(form, 0x180)
            let end := add(rows.offset, rows.length)
            mstore(0x20, slot)
            for { let row := rows.offset } lt(row, end) { row := add(row, 76) } {
                let limit := shr(160, calldataload(row))
                mstore(add(form, 0x80), limit)
                mstore(add(form, 0x142), keccak256(form, 0xa0))
                mstore(callAt, keccak256(add(form, 0x120), 0x42))
                let s := calldataload(add(row, 44))
                mstore(add(callAt, 0x20), add(27, shr(255, s)))
                mstore(add(callAt, 0x40), calldataload(add(row, 12)))
                s := shr(1, shl(1, s))
                mstore(add(callAt, 0x60), s)
                mstore(signerAt, 0)
                pop(staticcall(gas(), 1, callAt, 0x80, signerAt, 0x20))
                mstore(0x00, keccak256(signerAt, 0x80))
                let at := keccak256(0x00, 0x40)
                let word := sload(at)
                let redeemed := and(shr(96, word), 0xffffffffffffffffffffffff)
                let locked := and(word, 0xffffffffffffffffffffffff)
                if gt(limit, locked) { limit := locked }
                if gt(limit, redeemed) {
                    if iszero(or(gt(s, HALF_ORDER), iszero(mload(signerAt)))) {
                        let amount := sub(limit, redeemed)
                        sstore(at, add(word, shl(96, amount)))
                        total := add(total, amount)
                        moved := add(moved, 1)
                    }
                }
            }
        }
    }
}
