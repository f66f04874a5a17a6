// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What may be tuned, and how far
/// @notice Holds no money and no power over any. The governor, a timelock, may write a new version within bounds that deployment
/// fixed for ever; whoever acts under a version (a dispute, an auction) keeps it to its end. Settlement and stakes read none.
interface IParameters {
    /// @notice For both courts. A slash takes `slashBps` of what the host has staked. Of the slash, `rewardBps` go to the jurors
    /// of the majority, `finderBps` to the challenger, at least `burnBps` are destroyed, the consumer gets its payment back from
    /// what is left, and the rest is destroyed too. Each vote sets `voteDeposit` of its juror's surety aside. Windows, ages and
    /// jail in seconds.
    struct CourtParams {
        uint96 bond;
        uint16 slashBps;
        uint16 burnBps;
        uint16 rewardBps;
        uint16 finderBps;
        uint8 committeeSize;
        uint8 quorum;
        uint16 drawDelayBlocks;
        uint32 commitWindow;
        uint32 revealWindow;
        uint32 appealWindow;
        uint32 receiptMaxAge;
        uint32 jailTime;
        uint32 answerWindow;
        uint96 voteDeposit;
    }

    /// @notice For the auctions. Deposits and reserve in wei. Of what a promotion brings, `lineageBps` go to the owner of the
    /// promoted agent's parent (if it has one), the rest is destroyed.
    struct MarketParams {
        uint96 shareDeposit;
        uint96 promotionDeposit;
        uint96 promotionReserve;
        uint8 promotionSlots;
        uint16 lineageBps;
    }

    /// @notice Only the governor writes versions.
    error NotGovernor(address caller);
    /// @notice The parameters contradict each other, or leave the bounds that deployment fixed.
    error BadParams();
    /// @notice No such version was written.
    error UnknownVersion(uint32 version);

    event CourtParamsSet(uint32 indexed version, CourtParams params);
    event MarketParamsSet(uint32 indexed version, MarketParams params);

    /// @notice Writes the next version. Against the accused nothing may get worse than at deployment: windows, draw delay, committee
    /// and quorum at least as large (windows and delay at most twice), slash, jail, receipt age and what jurors and challenger
    /// together gain from a slash at most as large, bond within a fourth and four times, a vote's deposit as large to four times
    /// and no more than the bond, at least a tenth of a slash destroyed.
    function setCourt(CourtParams calldata params) external;

    /// @notice Writes the next version. Deposits and reserve within a tenth and ten times of deployment's, at most 32 slots, at
    /// most half to the lineage.
    function setMarket(MarketParams calldata params) external;

    /// @notice The timelock: immutable.
    function governor() external view returns (address);
    /// @notice The version in force. Versions count from 0.
    function court() external view returns (uint32 version, CourtParams memory params);
    function courtAt(uint32 version) external view returns (CourtParams memory);
    function market() external view returns (uint32 version, MarketParams memory params);
    function marketAt(uint32 version) external view returns (MarketParams memory);
    /// @notice The longest that a dispute can take from opening to execution when everybody uses every second, under any
    /// version that the bounds allow: all rounds with all windows at twice deployment's.
    function longestDispute() external view returns (uint256 seconds_);
    /// @notice The oldest receipt that any version lets into court.
    function oldestReceipt() external view returns (uint256 seconds_);
}
