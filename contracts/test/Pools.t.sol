// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../src/interfaces/IAgentRegistry.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {MoneyKit} from "./MoneyKit.sol";

/// @notice Split pools: who may claim what, in any order, to the wei.
contract PoolsTest is MoneyKit {
    uint96 private spent;

    function setUp() public {
        deployMoney();
        fund(payer, 1_000 * COIN);
        settlement.lock(host, terms, 0, lockRow(PAYER_KEY, 1_000 * COIN));
    }

    function _spend(uint256 amount) private {
        spent += uint96(amount);
        settlement.redeem(host, terms, 0, voucher(PAYER_KEY, spent));
    }

    function test_each_party_gets_its_share_and_anyone_may_send() public {
        _spend(10_000);
        for (uint256 k = 0; k < 3; ++k) {
            settlement.claim(AGENT, table(), k);
        }
        eq(coin.balanceOf(MAKER), 1_000, "maker");
        eq(coin.balanceOf(OEM), 500, "oem");
        eq(coin.balanceOf(CURATOR), 300, "curator");
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.claim(AGENT, table(), 0);
    }

    function test_a_changed_table_gets_nothing() public {
        _spend(10_000);
        IAgentRegistry.Party[] memory forged = table();
        forged[1].payee = address(0xBAD);
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.claim(AGENT, forged, 1);
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.claim(keccak256("other agent"), table(), 1);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.WrongParty.selector, 3));
        settlement.claim(AGENT, table(), 3);
    }

    function test_shares_never_pass_the_pool_whatever_the_order(uint256 seed) public {
        uint256[3] memory got;
        for (uint256 i = 0; i < 12; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            // Small odd amounts, where rounding bites.
            _spend(1 + seed % 97);
            uint256 k = (seed >> 128) % 3;
            uint256 due = settlement.claimable(AGENT, table(), k);
            if (due != 0) {
                settlement.claim(AGENT, table(), k);
                got[k] += due;
            }
            vm.assertLe(got[0] + got[1] + got[2], settlement.earned(terms), "sum of claims <= earned");
        }
        for (uint256 k = 0; k < 3; ++k) {
            uint256 due = settlement.claimable(AGENT, table(), k);
            if (due != 0) settlement.claim(AGENT, table(), k);
            got[k] += due;
            eq(got[k], settlement.claimed(terms, k), "claimed");
        }
        uint256 earned = settlement.earned(terms);
        uint256 paid = got[0] + got[1] + got[2];
        vm.assertLe(paid, earned, "never more");
        vm.assertLe(earned - paid, 1, "three parties: at most one wei waits");
        eq(got[1], earned * 500 / 1_800, "exact share, whatever the order");
    }

    function test_two_parties_leave_no_dust(uint96 amount) public {
        IAgentRegistry.Party[] memory two = new IAgentRegistry.Party[](2);
        two[0] = IAgentRegistry.Party(MAKER, 1, 333);
        two[1] = IAgentRegistry.Party(OEM, 2, 77);
        vm.prank(MAKER);
        bytes32 terms2 = registry.agreeTerms(AGENT, two, 0, new bytes[](0));
        amount = uint96(bound(amount, 100, 500 * COIN));
        fund(vm.addr(9), amount);
        bytes memory locks = lockRowFor(9, host, terms2, 0, amount);
        settlement.lockAndRedeem(host, terms2, 0, locks, voucherFor(9, host, terms2, 0, amount));
        uint256 sum = settlement.claimable(AGENT, two, 0) + settlement.claimable(AGENT, two, 1);
        eq(sum, settlement.earned(terms2), "all of it");
    }

    function test_claim_many_pays_one_payee_with_one_transfer_and_nobody_else() public {
        IAgentRegistry.Party[] memory second = table();
        second[0].bps = 2_000;
        vm.prank(MAKER);
        bytes32 terms2 = registry.agreeTerms(AGENT, second, 0, new bytes[](0));
        fund(vm.addr(9), 10_000);
        settlement.lockAndRedeem(
            host, terms2, 0, lockRowFor(9, host, terms2, 0, 10_000), voucherFor(9, host, terms2, 0, 10_000)
        );
        _spend(10_000);
        ISettlement.Share[] memory shares = new ISettlement.Share[](3);
        shares[0] = ISettlement.Share(AGENT, table(), 0);
        shares[1] = ISettlement.Share(AGENT, second, 0);
        shares[2] = ISettlement.Share(AGENT, table(), 0);
        vm.expectRevert(abi.encodeWithSelector(ISettlement.WrongParty.selector, 0));
        settlement.claimMany(OEM, shares);
        settlement.claimMany(MAKER, shares);
        eq(coin.balanceOf(MAKER), 3_000, "both pools, each once");
        vm.expectRevert(ISettlement.NothingDue.selector);
        settlement.claimMany(MAKER, shares);
    }
}
