// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStaking} from "./interfaces/IStaking.sol";

/// @title Draws a committee from the operators that were active at one moment
/// @notice A Fisher-Yates shuffle of the operators' places that stops when the committee is full. The shuffle's moved
/// places live in transient storage under the seed, so the cost grows with the committee and not with the network.
/// Everything it reads lies in the past: the same arguments give the same committee, whatever has happened since.
library Lottery {
    /// @dev Beyond eight probes a seat, and some for small networks, too many operators are excluded: give up.
    uint256 private constant PROBES_PER_SEAT = 8;
    uint256 private constant SPARE_PROBES = 32;

    /// @notice Up to `size` distinct operators among the `pool` that were active when `moment` ended; all of them when there are
    /// fewer and the network is small. Nobody in `out` judges, and nothing that somebody in `out` owns. `seed` must be fresh for
    /// every call.
    function pick(IStaking staking, bytes32 seed, uint256 size, uint256 pool, uint40 moment, address[10] memory out)
        internal
        returns (address[] memory jurors)
    {
        jurors = new address[](size);
        uint256 seated = 0;
        uint256 probes = size * PROBES_PER_SEAT + SPARE_PROBES;
        if (probes > pool) probes = pool;
        for (uint256 i = 0; i < probes && seated < size; ++i) {
            uint256 j = i + uint256(keccak256(abi.encode(seed, i))) % (pool - i);
            uint256 place = _at(seed, j);
            _move(seed, j, _at(seed, i));
            (address operator, address owner) = staking.candidate(place, moment);
            if (!_among(operator, out) && !_among(owner, out)) jurors[seated++] = operator;
        }
        assembly ("memory-safe") {
            mstore(jurors, seated)
        }
    }

    function _among(address who, address[10] memory out) private pure returns (bool) {
        for (uint256 i = 0; i < out.length; ++i) {
            if (out[i] == who) return true;
        }
        return false;
    }

    /// @dev The place at position `i` of the shuffle; every position starts with its own.
    function _at(bytes32 seed, uint256 i) private view returns (uint256 place) {
        assembly ("memory-safe") {
            place := tload(add(seed, i))
        }
        return place == 0 ? i : place - 1;
    }

    function _move(bytes32 seed, uint256 position, uint256 place) private {
        assembly ("memory-safe") {
            tstore(add(seed, position), add(place, 1))
        }
    }
}
