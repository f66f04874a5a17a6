// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IEpochs} from "./interfaces/IEpochs.sol";

/// @title The calendar of the auctions
/// @notice What is auctioned in one epoch is in force in the next. Two thirds of an epoch are for sealed bids on the next one, the
/// last third for opening them. Fixed at deployment: no parameter can move a deadline.
abstract contract Epochs is IEpochs {
    uint256 private constant SHORTEST = 3;

    /// @inheritdoc IEpochs
    uint40 public immutable genesis;
    /// @inheritdoc IEpochs
    uint32 public immutable epochLength;

    constructor(uint40 genesis_, uint32 epochLength_) {
        require(epochLength_ >= SHORTEST && epochLength_ <= 365 days, BadEpochs());
        genesis = genesis_;
        epochLength = epochLength_;
    }

    /// @inheritdoc IEpochs
    function currentEpoch() public view returns (uint32) {
        return block.timestamp < genesis ? 0 : uint32((block.timestamp - genesis) / epochLength);
    }

    /// @inheritdoc IEpochs
    function startOf(uint32 epoch) public view returns (uint40) {
        return SafeCast.toUint40(genesis + uint256(epoch) * epochLength);
    }

    /// @inheritdoc IEpochs
    function commitEnds(uint32 epoch) public view returns (uint40) {
        return startOf(epoch) - epochLength / 3;
    }

    /// @dev Bids on `epoch` are sealed during the first two thirds of the epoch before it.
    function _requireCommitting(uint32 epoch) internal view {
        require(epoch != 0 && block.timestamp >= startOf(epoch - 1), TooEarly(epoch == 0 ? 0 : startOf(epoch - 1)));
        require(block.timestamp < commitEnds(epoch), TooLate(commitEnds(epoch)));
    }

    function _requireRevealing(uint32 epoch) internal view {
        require(block.timestamp >= commitEnds(epoch), TooEarly(commitEnds(epoch)));
        require(block.timestamp < startOf(epoch), TooLate(startOf(epoch)));
    }

    function _requireOver(uint32 epoch) internal view {
        require(block.timestamp >= startOf(epoch), TooEarly(startOf(epoch)));
    }
}
