// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {AICoin} from "../src/AICoin.sol";
import {AgentRegistry} from "../src/AgentRegistry.sol";
import {AuditCourt} from "../src/AuditCourt.sol";
import {Leases} from "../src/Leases.sol";
import {LineageCourt} from "../src/LineageCourt.sol";
import {OfferBook} from "../src/OfferBook.sol";
import {Parameters} from "../src/Parameters.sol";
import {PromotionAuctions} from "../src/PromotionAuctions.sol";
import {Settlement} from "../src/Settlement.sol";
import {ShareAuctions} from "../src/ShareAuctions.sol";
import {Staking} from "../src/Staking.sol";
import {IParameters} from "../src/interfaces/IParameters.sol";

interface DeployVm {
    function startBroadcast() external;
    function stopBroadcast() external;
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function envOr(string calldata name, address fallback_) external view returns (address);
    function getNonce(address account) external view returns (uint64);
}

/// @notice Deploys all twelve with the parameters of a public network, for people who deploy with forge:
/// `forge script script/Deploy.s.sol --rpc-url URL --broadcast`. The Python deployer does the same. COIN names an ERC-20 that is
/// there already, of 18 decimals as these amounts are; PROPOSER who proposes to the timelock (a multisig, not the deployer's hot key).
contract Deploy {
    struct Network {
        IERC20 coin;
        AgentRegistry registry;
        Settlement settlement;
        TimelockController timelock;
        Parameters parameters;
        Staking staking;
        AuditCourt court;
        LineageCourt lineageCourt;
        OfferBook offerBook;
        ShareAuctions shareAuctions;
        PromotionAuctions promotionAuctions;
        Leases leases;
    }

    DeployVm private constant vm = DeployVm(address(uint160(uint256(keccak256("hevm cheat code")))));
    bool public constant IS_SCRIPT = true;
    uint96 private constant COIN = 1e18;
    uint32 private constant EPOCH = 7 days;

    function run() external returns (Network memory net) {
        address proposer = vm.envOr("PROPOSER", msg.sender);
        IERC20 coin = IERC20(vm.envOr("COIN", address(0)));
        vm.startBroadcast();
        if (address(coin) == address(0)) coin = new AICoin("Lading", "LADE", 1e9 * uint256(COIN), msg.sender);
        net = _deploy(coin, msg.sender, proposer);
        vm.stopBroadcast();
    }

    /// @notice The same, created by this contract.
    function deploy(IERC20 coin, address proposer) external returns (Network memory net) {
        return _deploy(coin, address(this), proposer);
    }

    /// @dev Three contracts must know others before they exist: the deployer's next creations, counted from the registry. Those
    /// refuse to be created anywhere else.
    function _deploy(IERC20 coin, address deployer, address proposer) private returns (Network memory net) {
        uint256 first = vm.getNonce(deployer);
        net.coin = coin;
        address auctions = vm.computeCreateAddress(deployer, first + 8);
        net.registry = new AgentRegistry(auctions, vm.computeCreateAddress(deployer, first + 6));
        net.settlement = new Settlement(coin, net.registry, 1 hours, 1 days);
        net.timelock = _timelock(proposer);
        net.parameters = new Parameters(address(net.timelock), _court(), _market());
        net.staking = new Staking(coin, vm.computeCreateAddress(deployer, first + 5), 1_000 * COIN, 28 days);
        net.court = new AuditCourt(coin, net.staking, net.settlement, net.parameters);
        net.lineageCourt = new LineageCourt(coin, net.staking, net.registry, net.parameters);
        net.offerBook = new OfferBook(net.settlement);
        uint40 genesis = uint40(block.timestamp);
        net.shareAuctions = new ShareAuctions(coin, net.registry, net.parameters, genesis, EPOCH);
        net.promotionAuctions = new PromotionAuctions(coin, net.registry, net.parameters, genesis, EPOCH);
        net.leases = new Leases(coin, net.staking, net.settlement);
    }

    /// @dev Anyone may execute what has waited; nobody administers it from outside.
    function _timelock(address proposer) private returns (TimelockController) {
        address[] memory proposers = new address[](1);
        proposers[0] = proposer;
        return new TimelockController(2 days, proposers, new address[](1), address(0));
    }

    function _court() private pure returns (IParameters.CourtParams memory) {
        return IParameters.CourtParams({
            bond: 100 * COIN,
            slashBps: 5_000,
            burnBps: 3_000,
            rewardBps: 3_000,
            finderBps: 2_000,
            committeeSize: 3,
            quorum: 2,
            drawDelayBlocks: 8,
            commitWindow: 6 hours,
            revealWindow: 6 hours,
            appealWindow: 1 days,
            receiptMaxAge: 7 days,
            jailTime: 7 days,
            answerWindow: 7 days,
            voteDeposit: 10 * COIN
        });
    }

    function _market() private pure returns (IParameters.MarketParams memory) {
        return IParameters.MarketParams({
            shareDeposit: 50 * COIN,
            promotionDeposit: 50 * COIN,
            promotionReserve: 10 * COIN,
            promotionSlots: 8,
            lineageBps: 2_000
        });
    }
}
