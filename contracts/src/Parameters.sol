// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IParameters} from "./interfaces/IParameters.sol";

/// @title What may be tuned, and how far
/// @notice Version 0 is deployment's, and the yardstick of all that follow: a version is compared with it and never with the
/// one before, so that no number of small steps leads further than one.
contract Parameters is IParameters {
    uint256 private constant WHOLE_BPS = 10_000;
    uint256 private constant MIN_BURN_BPS = 1_000;
    uint256 private constant MAX_COMMITTEE = 7;
    uint256 private constant MAX_DRAW_DELAY = 200;
    uint256 private constant MAX_APPEALS = 2;
    uint256 private constant MAX_SLOTS = 32;

    address public immutable governor;
    CourtParams[] private _court;
    MarketParams[] private _market;

    modifier onlyGovernor() {
        require(msg.sender == governor, NotGovernor(msg.sender));
        _;
    }

    constructor(address governor_, CourtParams memory court_, MarketParams memory market_) {
        require(governor_ != address(0), BadParams());
        governor = governor_;
        _pushCourt(court_);
        _pushMarket(market_);
    }

    /// @inheritdoc IParameters
    function setCourt(CourtParams calldata p) external onlyGovernor {
        CourtParams memory first = _court[0];
        require(_within(p.commitWindow, first.commitWindow), BadParams());
        require(_within(p.revealWindow, first.revealWindow), BadParams());
        require(_within(p.appealWindow, first.appealWindow), BadParams());
        require(_within(p.answerWindow, first.answerWindow), BadParams());
        require(_within(p.drawDelayBlocks, first.drawDelayBlocks), BadParams());
        require(p.committeeSize >= first.committeeSize && p.quorum >= first.quorum, BadParams());
        require(p.slashBps <= first.slashBps && p.jailTime <= first.jailTime, BadParams());
        require(p.receiptMaxAge <= first.receiptMaxAge, BadParams());
        require(uint256(p.rewardBps) + p.finderBps <= uint256(first.rewardBps) + first.finderBps, BadParams());
        require(uint256(p.bond) * 4 >= first.bond && p.bond <= uint256(first.bond) * 4, BadParams());
        require(p.voteDeposit >= first.voteDeposit && p.voteDeposit <= uint256(first.voteDeposit) * 4, BadParams());
        _pushCourt(p);
    }

    /// @inheritdoc IParameters
    function setMarket(MarketParams calldata p) external onlyGovernor {
        MarketParams memory first = _market[0];
        require(_near(p.shareDeposit, first.shareDeposit), BadParams());
        require(_near(p.promotionDeposit, first.promotionDeposit), BadParams());
        require(_near(p.promotionReserve, first.promotionReserve), BadParams());
        _pushMarket(p);
    }

    /// @inheritdoc IParameters
    function court() external view returns (uint32 version, CourtParams memory params) {
        version = uint32(_court.length - 1);
        params = _court[version];
    }

    /// @inheritdoc IParameters
    function courtAt(uint32 version) external view returns (CourtParams memory) {
        require(version < _court.length, UnknownVersion(version));
        return _court[version];
    }

    /// @inheritdoc IParameters
    function market() external view returns (uint32 version, MarketParams memory params) {
        version = uint32(_market.length - 1);
        params = _market[version];
    }

    /// @inheritdoc IParameters
    function marketAt(uint32 version) external view returns (MarketParams memory) {
        require(version < _market.length, UnknownVersion(version));
        return _market[version];
    }

    /// @inheritdoc IParameters
    function longestDispute() external view returns (uint256 seconds_) {
        CourtParams memory first = _court[0];
        uint256 round = uint256(first.commitWindow) + first.revealWindow + first.appealWindow;
        return (1 + MAX_APPEALS) * 2 * round;
    }

    /// @inheritdoc IParameters
    function oldestReceipt() external view returns (uint256 seconds_) {
        return _court[0].receiptMaxAge;
    }

    /// @dev What every version must be, the first one too.
    function _pushCourt(CourtParams memory p) private {
        require(p.bond != 0 && p.bond <= type(uint96).max >> MAX_APPEALS, BadParams());
        require(p.voteDeposit != 0 && p.voteDeposit <= p.bond, BadParams());
        require(p.slashBps != 0 && p.slashBps <= WHOLE_BPS && p.burnBps >= MIN_BURN_BPS, BadParams());
        require(uint256(p.burnBps) + p.rewardBps + p.finderBps <= WHOLE_BPS, BadParams());
        require(p.committeeSize <= MAX_COMMITTEE && p.quorum <= p.committeeSize, BadParams());
        require(p.quorum >= 2 && p.quorum > p.committeeSize / 2, BadParams());
        require(p.drawDelayBlocks != 0 && p.drawDelayBlocks <= MAX_DRAW_DELAY, BadParams());
        require(p.commitWindow != 0 && p.revealWindow != 0 && p.appealWindow != 0, BadParams());
        require(p.answerWindow != 0 && p.receiptMaxAge != 0, BadParams());
        emit CourtParamsSet(uint32(_court.length), p);
        _court.push(p);
    }

    function _pushMarket(MarketParams memory p) private {
        require(p.shareDeposit != 0 && p.promotionDeposit != 0, BadParams());
        require(p.promotionSlots != 0 && p.promotionSlots <= MAX_SLOTS, BadParams());
        require(p.lineageBps <= WHOLE_BPS / 2, BadParams());
        emit MarketParamsSet(uint32(_market.length), p);
        _market.push(p);
    }

    /// @dev A window: never shorter than at deployment, and never more than twice as long.
    function _within(uint256 window, uint256 first) private pure returns (bool) {
        return window >= first && window <= 2 * first;
    }

    /// @dev An amount of the market: between a tenth and ten times of deployment's.
    function _near(uint256 amount, uint256 first) private pure returns (bool) {
        return amount * 10 >= first && amount <= first * 10;
    }
}
