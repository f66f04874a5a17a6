// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AuditCourt} from "../src/AuditCourt.sol";
import {Parameters} from "../src/Parameters.sol";
import {Staking} from "../src/Staking.sol";
import {IParameters} from "../src/interfaces/IParameters.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice The money's contracts and, on top, parameters, staking and court. The test contract is the governor.
abstract contract Kit is MoneyKit {
    uint40 internal constant COOLDOWN = 10 days;
    uint96 internal constant MIN_STAKE = 100 * COIN;

    Parameters internal parameters;
    Staking internal staking;
    AuditCourt internal court;

    function deployAll() internal {
        deployMoney();
        deployCourt();
    }

    /// @dev On whatever coin and settlement are there.
    function deployCourt() internal {
        parameters = new Parameters(address(this), courtParams(), marketParams());
        address expected = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        staking = new Staking(coin, expected, MIN_STAKE, COOLDOWN);
        court = new AuditCourt(coin, staking, settlement, parameters);
        coin.approve(address(staking), type(uint256).max);
    }

    function courtParams() internal pure returns (IParameters.CourtParams memory) {
        return IParameters.CourtParams({
            bond: 10 * COIN,
            slashBps: 5_000,
            burnBps: 4_000,
            rewardBps: 2_000,
            finderBps: 1_000,
            committeeSize: 3,
            quorum: 2,
            drawDelayBlocks: 2,
            commitWindow: 600,
            revealWindow: 300,
            appealWindow: 1 days,
            receiptMaxAge: 3 days,
            jailTime: 30 days,
            answerWindow: 2 days,
            voteDeposit: COIN
        });
    }

    function marketParams() internal pure returns (IParameters.MarketParams memory) {
        return IParameters.MarketParams({
            shareDeposit: COIN,
            promotionDeposit: 2 * COIN,
            promotionReserve: 5 * COIN,
            promotionSlots: 4,
            lineageBps: 2_000
        });
    }
}
