// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AuditCourt} from "../src/AuditCourt.sol";
import {Staking} from "../src/Staking.sol";
import {IAICoin} from "../src/interfaces/IAICoin.sol";
import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice The money's contracts and, on top, staking and court.
abstract contract Kit is MoneyKit {
    uint40 internal constant COOLDOWN = 7 days;
    uint96 internal constant MIN_STAKE = 100 * COIN;

    Staking internal staking;
    AuditCourt internal court;

    function deployAll() internal {
        deployMoney();
        address expected = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        staking = new Staking(IAICoin(address(coin)), expected, MIN_STAKE, COOLDOWN);
        court = new AuditCourt(IAICoin(address(coin)), staking, settlement, courtParams());
        coin.approve(address(staking), type(uint256).max);
    }

    function courtParams() internal pure returns (IAuditCourt.Params memory) {
        return IAuditCourt.Params({
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
            jailTime: 30 days
        });
    }
}
