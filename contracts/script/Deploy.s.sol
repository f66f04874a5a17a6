// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AICoin} from "../src/AICoin.sol";
import {AgentRegistry} from "../src/AgentRegistry.sol";
import {AuditCourt} from "../src/AuditCourt.sol";
import {Settlement} from "../src/Settlement.sol";
import {Staking} from "../src/Staking.sol";
import {IAICoin} from "../src/interfaces/IAICoin.sol";
import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";

interface DeployVm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function getNonce(address account) external view returns (uint64);
}

/// @notice Deploys all five with the parameters of a public network, for people who deploy with forge:
/// `forge script script/Deploy.s.sol --rpc-url URL --broadcast`. The Python deployer does the same.
contract Deploy {
    DeployVm private constant vm = DeployVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_SCRIPT = true;
    uint96 private constant COIN = 1e18;

    function run()
        external
        returns (AICoin coin, AgentRegistry registry, Settlement settlement, Staking staking, AuditCourt court)
    {
        vm.startBroadcast();
        coin = new AICoin("Lading", "LADE", 1e9 * uint256(COIN), msg.sender);
        registry = new AgentRegistry();
        settlement = new Settlement(coin, registry, 1 hours, 1 days);
        // Staking must know its court before the court exists: it is the deployer's next but one creation.
        address next = vm.computeCreateAddress(msg.sender, vm.getNonce(msg.sender) + 1);
        staking = new Staking(IAICoin(address(coin)), next, 1_000 * COIN, 14 days);
        court = new AuditCourt(IAICoin(address(coin)), staking, settlement, _params());
        vm.stopBroadcast();
    }

    function _params() private pure returns (IAuditCourt.Params memory) {
        return IAuditCourt.Params({
            bond: 50 * COIN,
            slashBps: 5_000,
            burnBps: 4_000,
            rewardBps: 2_000,
            finderBps: 1_000,
            committeeSize: 3,
            quorum: 2,
            drawDelayBlocks: 4,
            commitWindow: 6 hours,
            revealWindow: 2 hours,
            appealWindow: 2 days,
            receiptMaxAge: 7 days,
            jailTime: 30 days
        });
    }
}
