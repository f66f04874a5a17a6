// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title The calendar of the auctions
interface IEpochs {
    /// @notice At deployment: an epoch is between three seconds and a year.
    error BadEpochs();
    /// @notice Not before this second.
    error TooEarly(uint256 until);
    /// @notice Too late: the deadline was this second.
    error TooLate(uint256 deadline);

    /// @notice The first second of epoch 0.
    function genesis() external view returns (uint40);
    /// @notice Seconds.
    function epochLength() external view returns (uint32);
    function currentEpoch() external view returns (uint32);
    /// @notice The first second of `epoch`: bids on it must be opened before.
    function startOf(uint32 epoch) external view returns (uint40);
    /// @notice Bids on `epoch` are sealed before this second and opened from it on.
    function commitEnds(uint32 epoch) external view returns (uint40);
}
