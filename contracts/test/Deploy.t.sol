// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deploy} from "../script/Deploy.s.sol";
import {AICoin} from "../src/AICoin.sol";
import {IParameters} from "../src/interfaces/IParameters.sol";
import {Vm} from "./Vm.sol";

/// @notice The twelve find each other, and nobody but the timelock rules over anything.
contract DeployTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    address private constant PROPOSER = address(0x9009);

    AICoin private coin;
    Deploy.Network private net;

    function setUp() public {
        vm.warp(1_800_000_000);
        coin = new AICoin("Lading", "LADE", 1e27, address(this));
        net = new Deploy().deploy(coin, PROPOSER);
    }

    /// @notice Forge deploys contracts of any size, a chain does not (EIP-170).
    function test_every_contract_fits_on_a_chain() public view {
        address[11] memory all = [
            address(net.registry),
            address(net.settlement),
            address(net.timelock),
            address(net.parameters),
            address(net.staking),
            address(net.court),
            address(net.lineageCourt),
            address(net.offerBook),
            address(net.shareAuctions),
            address(net.promotionAuctions),
            address(net.leases)
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            vm.assertLe(all[i].code.length, 24_576, "EIP-170");
        }
    }

    function test_the_twelve_find_each_other() public {
        vm.assertEq(net.registry.auctions(), address(net.shareAuctions), "auctions");
        vm.assertEq(net.registry.lineageCourt(), address(net.lineageCourt), "lineage court");
        vm.assertEq(net.staking.court(), address(net.court), "court");
        vm.assertEq(net.parameters.governor(), address(net.timelock), "governor");
        uint256 horizon = net.parameters.longestDispute() + net.parameters.oldestReceipt();
        vm.assertTrue(net.staking.cooldown() > horizon, "stakes outlast disputes");
        vm.assertEq(net.timelock.getMinDelay(), 2 days, "delay");
        vm.assertTrue(net.timelock.hasRole(net.timelock.PROPOSER_ROLE(), PROPOSER), "proposes");
        vm.assertTrue(net.timelock.hasRole(net.timelock.EXECUTOR_ROLE(), address(0)), "anyone executes");
        bytes32 admin = net.timelock.DEFAULT_ADMIN_ROLE();
        vm.assertTrue(!net.timelock.hasRole(admin, PROPOSER) && !net.timelock.hasRole(admin, address(this)), "no admin");
        address[6] memory coins = [
            address(net.settlement.coin()),
            address(net.staking.coin()),
            address(net.court.coin()),
            address(net.lineageCourt.coin()),
            address(net.shareAuctions.coin()),
            address(net.leases.coin())
        ];
        for (uint256 i = 0; i < coins.length; ++i) {
            vm.assertEq(coins[i], address(coin), "one coin");
        }
        (, IParameters.CourtParams memory p) = net.parameters.court();
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, address(this)));
        net.parameters.setCourt(p);
    }
}
