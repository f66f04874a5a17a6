// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStaking} from "./interfaces/IStaking.sol";

/// @title Draws a committee from the active operators
/// @notice A Fisher-Yates shuffle of the operators' indices that stops when the committee is full. The shuffle's moved
/// indices live in transient storage under the seed, so the cost grows with the committee and not with the network.
library Lottery {
    /// @notice Who may not judge: the parties, the consumer, whoever shares an owner with one of them, and late joiners.
    struct Exclusions {
        address host;
        address hostOwner;
        address challenger;
        address challengerOwner;
        address signer;
        address payer;
        uint256 joinedAfter;
    }

    /// @dev Beyond eight probes a seat, and some for small networks, too many operators are excluded: give up.
    uint256 private constant PROBES_PER_SEAT = 8;
    uint256 private constant SPARE_PROBES = 32;

    /// @notice Up to `size` distinct eligible operators among the first `pool` of the active list; all of them when there are
    /// fewer and the network is small. `seed` must be fresh for every call.
    function pick(IStaking staking, bytes32 seed, uint256 size, uint256 pool, Exclusions memory out)
        internal
        returns (address[] memory jurors)
    {
        jurors = new address[](size);
        uint256 seated = 0;
        uint256 probes = size * PROBES_PER_SEAT + SPARE_PROBES;
        if (probes > pool) probes = pool;
        for (uint256 i = 0; i < probes && seated < size; ++i) {
            uint256 j = i + uint256(keccak256(abi.encode(seed, i))) % (pool - i);
            uint256 index = _at(seed, j);
            _move(seed, j, _at(seed, i));
            (address operator, address owner, uint256 activeSince) = staking.candidate(index);
            if (operator == address(0) || activeSince > out.joinedAfter) continue;
            if (!_excluded(operator, owner, out)) jurors[seated++] = operator;
        }
        assembly ("memory-safe") {
            mstore(jurors, seated)
        }
    }

    function _excluded(address operator, address owner, Exclusions memory out) private pure returns (bool) {
        bool party = operator == out.host || operator == out.challenger || operator == out.signer;
        bool kin =
            owner == out.hostOwner || owner == out.challenger || owner == out.challengerOwner || owner == out.host;
        return party || kin || operator == out.payer || owner == out.payer || owner == out.signer;
    }

    /// @dev The index at position `i` of the shuffle; every position starts with its own.
    function _at(bytes32 seed, uint256 i) private view returns (uint256 index) {
        assembly ("memory-safe") {
            index := tload(add(seed, i))
        }
        return index == 0 ? i : index - 1;
    }

    function _move(bytes32 seed, uint256 position, uint256 index) private {
        assembly ("memory-safe") {
            tstore(add(seed, position), add(index, 1))
        }
    }
}
