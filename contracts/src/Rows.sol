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
    uint256 private constant AMOUNT = 0xffffffffffffffffffffffff;
    /// @dev The flags in a channel's word: after locked and redeemed (96 bits each) and closesAt (40).
    uint256 private constant VIA_SESSION = 1 << 232;
    uint256 private constant DEAD = 1 << 240;
    /// @dev keccak256("Locked(address,address,bytes32,uint32,uint256)"): assembly takes literals only.
    uint256 private constant LOCKED_EVENT = 0x478b9bef9bc7f6ce88ae5fec42f96e8e2b0ac23f99b5930bf9160f3743e2b4da;

    /// @notice Reverts unless the calldata holds whole rows.
    function check(bytes calldata rows) internal pure {
        require(rows.length % SIZE == 0, ISettlement.RaggedRows(rows.length));
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

    /// @notice Moves deposits into channels as far as each row says, and as its signer's session and account reach: the rows from
    /// calldata position `row` to `end`. `books` is the slot of the settlement's books, the channels' follows it. Returns
    /// how many rows moved something.
    /// @dev The body of `redeem` up to the channel's word, then: a book's words are free (96 bits) | others, payer (160) | cap (96) <<
    /// 160, locked (96) | expiry (40) << 96. A channel's word is zero if and only if nothing was ever locked. No sum leaves its
    /// bits: a channel's is at most the cumulative, a session's at most its cap.
    function lock(uint256 form, uint256 row, uint256 end, uint256 books) internal returns (uint256 moved) {
        assembly ("memory-safe") {
            let signerAt := add(form, 0xa0)
            for {} lt(row, end) { row := add(row, 76) } {
                let wanted := shr(160, calldataload(row))
                mstore(add(form, 0x80), wanted)
                mstore(add(form, 0x142), keccak256(form, 0xa0))
                mstore(add(form, 0x180), keccak256(add(form, 0x120), 0x42))
                {
                    let s := calldataload(add(row, 44))
                    mstore(add(form, 0x1a0), add(27, shr(255, s)))
                    mstore(add(form, 0x1c0), calldataload(add(row, 12)))
                    s := shr(1, shl(1, s))
                    mstore(add(form, 0x1e0), s)
                    // ecrecover writes nothing for a bad signature: the signer's word stays zero.
                    mstore(signerAt, 0)
                    pop(staticcall(gas(), 1, add(form, 0x180), 0x80, signerAt, 0x20))
                    if gt(s, HALF_ORDER) { continue }
                }
                mstore(0x00, keccak256(signerAt, 0x80))
                mstore(0x20, add(books, 1))
                let slot := keccak256(0x00, 0x40)
                let word := sload(slot)
                // Stale, badly signed or dead.
                if iszero(gt(wanted, and(word, AMOUNT))) { continue }
                mstore(0x00, mload(signerAt))
                if or(and(word, DEAD), iszero(mload(0x00))) { continue }
                wanted := sub(wanted, and(word, AMOUNT))
                mstore(0x20, books)
                let at := keccak256(0x00, 0x40)
                let payer := sload(add(at, 1))
                // The key became a session after it opened this channel with its own money: the two must never mix.
                if word { if xor(iszero(payer), iszero(and(word, VIA_SESSION))) { continue } }
                switch payer
                case 0 {
                    let purse := sload(at)
                    if gt(wanted, and(purse, AMOUNT)) { wanted := and(purse, AMOUNT) }
                    if iszero(wanted) { continue }
                    sstore(at, sub(purse, wanted))
                }
                default {
                    let spent := sload(add(at, 2))
                    let room := sub(shr(160, payer), and(spent, AMOUNT))
                    if gt(wanted, room) { wanted := room }
                    // Over a cap that was lowered, or expired.
                    if or(slt(room, 0), iszero(lt(timestamp(), shr(96, spent)))) { continue }
                    mstore(0x00, shr(96, shl(96, payer)))
                    payer := keccak256(0x00, 0x40)
                    room := sload(payer)
                    if gt(wanted, and(room, AMOUNT)) { wanted := and(room, AMOUNT) }
                    if iszero(wanted) { continue }
                    sstore(payer, sub(room, wanted))
                    sstore(add(at, 2), add(spent, wanted))
                    word := or(word, VIA_SESSION)
                }
                word := add(word, wanted)
                sstore(slot, word)
                mstore(add(form, 0x80), and(word, AMOUNT))
                log4(
                    add(form, 0x60),
                    0x40,
                    LOCKED_EVENT,
                    mload(signerAt),
                    mload(add(form, 0x20)),
                    mload(add(form, 0x40))
                )
                moved := add(moved, 1)
            }
        }
    }

    /// @notice Redeems every row against the channels in the mapping at `slot`: min(cumulative, locked) - redeemed, if more
    /// than nothing. Returns the sum, and how many rows added to it.
    /// @dev Inline again: a call and its stack cost 3 % of a voucher. A channel's word is
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
                let redeemed := and(shr(96, word), AMOUNT)
                let locked := and(word, AMOUNT)
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
