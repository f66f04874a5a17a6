// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";

/// @title Split tables and consents as they lie in the calldata
/// @notice Owns the two loops that every publisher pays for. Assembly, because they cost a fourth of it: `agreeTerms` for five must
/// stay under 80,000 gas, of which 74,000 are calldata, storage, the event and ecrecover.
library Tables {
    uint256 internal constant MAX_PARTIES = 16;
    uint256 internal constant WHOLE_BPS = 10_000;
    uint256 internal constant LAST_ROLE = 4;
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// @notice The sum of the shares, and one bit for each party that is not `sender`. Reverts for a table that nobody may agree.
    function read(IAgentRegistry.Party[] calldata parties, address sender)
        internal
        pure
        returns (uint256 sum, uint256 others)
    {
        bool good;
        (good, sum, others) = _scan(parties, sender);
        if (!good) revertFor(parties);
    }

    /// @notice What `payee` gets in all its roles, and one bit for each of its places in the table.
    function sharesOf(IAgentRegistry.Party[] calldata parties, address payee)
        internal
        pure
        returns (uint256 sum, uint256 places)
    {
        assembly ("memory-safe") {
            let at := parties.offset
            let end := shl(parties.length, 1)
            for { let bit := 1 } lt(bit, end) { bit := add(bit, bit) } {
                if eq(calldataload(at), payee) {
                    sum := add(sum, calldataload(add(at, 0x40)))
                    places := or(places, bit)
                }
                at := add(at, 0x60)
            }
        }
    }

    /// @notice Says in plain words what is wrong with the table; does nothing if nothing is.
    function revertFor(IAgentRegistry.Party[] calldata parties) internal pure {
        require(parties.length != 0 && parties.length <= MAX_PARTIES, IAgentRegistry.BadPartyCount(parties.length));
        uint256 sum = 0;
        for (uint256 i = 0; i < parties.length; ++i) {
            IAgentRegistry.Party calldata p = parties[i];
            bool valid = p.payee != address(0) && p.role != 0 && p.role <= LAST_ROLE && p.bps != 0;
            require(valid, IAgentRegistry.BadParty(i));
            for (uint256 j = 0; j < i; ++j) {
                bool other = parties[j].payee != p.payee || parties[j].role != p.role;
                require(other, IAgentRegistry.DuplicateParty(i));
            }
            sum += p.bps;
        }
        require(sum < WHOLE_BPS, IAgentRegistry.SharesTooHigh(sum));
    }

    /// @notice Logs TermsAgreed(id, agent, parties) with the parties as they came.
    function logAgreed(bytes32 id, bytes32 agent, IAgentRegistry.Party[] calldata parties) internal {
        bytes32 topic = IAgentRegistry.TermsAgreed.selector;
        assembly ("memory-safe") {
            let at := mload(0x40)
            let size := mul(parties.length, 0x60)
            mstore(at, 0x20)
            mstore(add(at, 0x20), parties.length)
            calldatacopy(add(at, 0x40), parties.offset, size)
            log3(at, add(size, 0x40), topic, id, agent)
        }
    }

    /// @notice The bits of `missing` that stay when those of the parties are gone who signed `digest`, each in its consent: 64 bytes
    /// (ERC-2098) or 65.
    /// @dev An offset out of bounds reads other calldata, or zeros, as a signature: good or bad like any other.
    function unsigned(
        bytes32 digest,
        uint256 missing,
        IAgentRegistry.Party[] calldata parties,
        bytes[] calldata consents
    ) internal view returns (uint256 left) {
        assembly ("memory-safe") {
            left := missing
            let form := mload(0x40)
            mstore(form, digest)
            let vAt := add(form, 0x20)
            let rAt := add(form, 0x40)
            let sAt := add(form, 0x60)
            let payeeAt := parties.offset
            let next := consents.offset
            for { let bit := 1 } iszero(lt(missing, bit)) { bit := add(bit, bit) } {
                if and(missing, bit) {
                    let at := add(consents.offset, calldataload(next))
                    let s := calldataload(add(at, 0x40))
                    switch calldataload(at)
                    case 65 { mstore(vAt, byte(0, calldataload(add(at, 0x60)))) }
                    case 64 {
                        mstore(vAt, add(27, shr(255, s)))
                        s := shr(1, shl(1, s))
                    }
                    default { s := not(0) }
                    if iszero(gt(s, HALF_ORDER)) {
                        mstore(rAt, calldataload(add(at, 0x20)))
                        mstore(sAt, s)
                        // ecrecover writes nothing for a bad signature: the word stays zero, and no payee is.
                        mstore(0x00, 0)
                        pop(staticcall(gas(), 1, form, 0x80, 0x00, 0x20))
                        if eq(mload(0x00), calldataload(payeeAt)) { left := xor(left, bit) }
                    }
                }
                payeeAt := add(payeeAt, 0x60)
                next := add(next, 0x20)
            }
        }
    }

    /// @notice The first 20 bytes of keccak256(abi.encode(agent)).
    function tagOf(bytes32 agent) internal pure returns (bytes20 tag) {
        assembly ("memory-safe") {
            mstore(0x00, agent)
            tag := shl(96, shr(96, keccak256(0x00, 0x20)))
        }
    }

    /// @dev Good only if `revertFor` finds nothing. Each party leaves a mark in `seen` at a place that depends on payee and role: where
    /// one is already, it may stand there twice.
    function _scan(IAgentRegistry.Party[] calldata parties, address sender)
        private
        pure
        returns (bool good, uint256 sum, uint256 others)
    {
        assembly ("memory-safe") {
            let bad := gt(sub(parties.length, 1), 15)
            let seen := 0
            let bit := 1
            let end := shl(parties.length, 1)
            for { let at := parties.offset } iszero(eq(bit, end)) { at := add(at, 0x60) } {
                let payee := calldataload(at)
                let role := calldataload(add(at, 0x20))
                let bps := calldataload(add(at, 0x40))
                sum := add(sum, bps)
                // Zero less one is out of every range.
                bad := or(bad, gt(sub(payee, 1), 0xfffffffffffffffffffffffffffffffffffffffe))
                bad := or(bad, or(gt(sub(role, 1), 3), gt(sub(bps, 1), 9998)))
                role := shl(and(add(payee, shl(6, role)), 0xff), 1)
                bad := or(bad, and(seen, role))
                seen := or(seen, role)
                others := or(others, mul(bit, eq(payee, sender)))
                bit := add(bit, bit)
            }
            others := xor(others, sub(end, 1))
            good := iszero(or(bad, gt(sum, 9999)))
        }
    }
}
