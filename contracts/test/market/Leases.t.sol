// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ILeases} from "../../src/interfaces/ILeases.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice A lease from the bid to its end, and what each step refuses. The kit's: 2 slots, 3 wei a second, an hour; bonds of 1,001
/// and 703 wei.
contract LeasesTest is MarketKit {
    uint256 private constant PRICE = 2 * 3 * 3_600;
    uint256 private tenantHad;
    uint256 private hostHad;

    function setUp() public {
        deployMarket();
        tenantHad = coin.balanceOf(tenant);
        hostHad = coin.balanceOf(host);
        vm.prank(COLD);
        coin.approve(address(leases), type(uint256).max);
    }

    function _state(bytes32 id) private view returns (uint256) {
        return uint256(leases.leases(id).state);
    }

    function _balances(uint256 tenantPaid, uint256 hostGot, string memory why) private view {
        eq(tenantHad - coin.balanceOf(tenant), tenantPaid, why);
        eq(coin.balanceOf(host) - hostHad, hostGot, why);
        eq(coin.balanceOf(address(leases)), 0, "nothing is left");
    }

    // ---- a lease that goes well

    function test_served_to_the_end_pays_all_and_gives_both_bonds_back() public {
        bytes32 id = running();
        eq(coin.balanceOf(address(leases)), PRICE + 1_001 + 703, "in escrow");
        skip(1 hours + 600);
        vm.expectEmit(true, true, true, true, address(leases));
        emit ILeases.LeaseServed(id, 600, 3_600);
        collect(id, 600);
        skip(3_000);
        collect(id, 3_600);
        vm.expectEmit(true, true, true, true, address(leases));
        emit ILeases.LeaseEnded(id, 0, 0, 0, 0);
        leases.finish(id);
        _balances(PRICE, PRICE, "paid");
        eq(_state(id), uint256(ILeases.State.Ended), "ended");
    }

    function test_what_is_earned_goes_where_the_host_is_paid() public {
        vm.prank(host);
        settlement.setPayout(host, MAKER);
        bytes32 id = running();
        skip(2 hours);
        collect(id, 3_600);
        eq(coin.balanceOf(MAKER), PRICE, "payout address");
    }

    function test_the_owner_accepts_for_its_operator_and_gets_its_bond_back() public {
        uint256 coldHad = coin.balanceOf(COLD);
        ILeases.Request memory open = request();
        open.host = address(0);
        vm.prank(tenant);
        bytes32 id = leases.bid(open);
        vm.prank(COLD);
        leases.accept(id, host);
        ILeases.Lease memory lease = leases.leases(id);
        vm.assertEq(lease.host, host, "host");
        vm.assertEq(lease.bondPayer, COLD, "who paid the bond");
        eq(coldHad - coin.balanceOf(COLD), 1_001, "bond");
        skip(2 hours);
        collect(id, 3_600);
        leases.finish(id);
        eq(coin.balanceOf(COLD), coldHad, "bond back");
    }

    function test_a_bid_can_be_read_as_it_was_made() public {
        ILeases.Request memory asked = request();
        vm.prank(tenant);
        bytes32 id = leases.bid(asked);
        ILeases.Lease memory lease = leases.leases(id);
        vm.assertEq(lease.tenant, tenant, "tenant");
        vm.assertEq(lease.host, asked.host, "host");
        vm.assertEq(lease.agent, asked.agent, "agent");
        vm.assertEq(lease.bondPayer, address(0), "no bond yet");
        eq(lease.slots, asked.slots, "slots");
        eq(lease.start, asked.start, "start");
        eq(lease.duration, asked.duration, "duration");
        eq(lease.acceptBy, asked.acceptBy, "acceptBy");
        eq(lease.rate, asked.rate, "rate");
        eq(lease.hostBond, asked.hostBond, "host's bond");
        eq(lease.tenantBond, asked.tenantBond, "tenant's bond");
        eq(leases.count(), 1, "count");
        vm.assertEq(leases.leaseId(0), id, "id");
    }

    function test_a_bid_is_taken_back_in_full() public {
        vm.prank(tenant);
        bytes32 id = leases.bid(request());
        vm.prank(tenant);
        leases.cancel(id);
        _balances(0, 0, "as before");
    }

    // ---- ends before all is served

    function test_a_host_that_quits_pays_its_part_to_the_tenant() public {
        bytes32 id = running();
        skip(1 hours + 900);
        collect(id, 900);
        // 2,700 of 3,600 seconds are not served: 750.75 of 1,001.
        vm.expectEmit(true, true, true, true, address(leases));
        emit ILeases.LeaseEnded(id, 1, 16_200, 750, 0);
        vm.prank(host);
        leases.quit(id);
        _balances(PRICE - 16_200 - 750, 5_400 - 750, "quit");
    }

    function test_a_tenant_that_leaves_pays_its_part_to_the_host_a_day_later() public {
        bytes32 id = running();
        skip(1 hours + 900);
        collect(id, 900);
        vm.prank(tenant);
        leases.vacate(id);
        vm.expectRevert(abi.encodeWithSelector(ILeases.TooEarly.selector, vm.getBlockTimestamp() + 1 days));
        leases.finish(id);
        skip(1 days);
        // 527.25 of 703.
        vm.expectEmit(true, true, true, true, address(leases));
        emit ILeases.LeaseEnded(id, 2, 16_200, 527, 0);
        leases.finish(id);
        _balances(PRICE - 16_200 + 527, 5_400 + 527, "left");
    }

    function test_when_neither_admits_it_both_parts_are_destroyed() public {
        bytes32 id = running();
        skip(1 hours + 900);
        collect(id, 900);
        skip(2_700 + 1 days - 1);
        vm.expectRevert(abi.encodeWithSelector(ILeases.TooEarly.selector, vm.getBlockTimestamp() + 1));
        leases.finish(id);
        skip(1);
        uint256 supply = coin.totalSupply();
        vm.expectEmit(true, true, true, true, address(leases));
        emit ILeases.LeaseEnded(id, 3, 16_200, 0, 750 + 527);
        leases.finish(id);
        _balances(PRICE - 16_200 + 527, 5_400 - 750, "neither");
        eq(supply - coin.totalSupply(), 750 + 527, "destroyed");
    }

    function test_whoever_admits_it_late_still_spares_the_other() public {
        bytes32 id = running();
        skip(2 hours + 1 days - 1);
        vm.prank(tenant);
        leases.vacate(id);
        skip(1 days);
        leases.finish(id);
        _balances(703, 703, "all of the tenant's bond, none of the host's");
    }

    // ---- what is refused

    function _refuseBid(bytes memory why, ILeases.Request memory asked) private {
        vm.expectRevert(why);
        vm.prank(tenant);
        leases.bid(asked);
    }

    function test_a_bid_for_nothing_or_at_no_time_is_refused() public {
        bytes memory bad = abi.encodeWithSelector(ILeases.BadLease.selector);
        ILeases.Request memory asked = request();
        asked.slots = 0;
        _refuseBid(bad, asked);
        asked = request();
        asked.duration = 0;
        _refuseBid(bad, asked);
        asked = request();
        asked.rate = 0;
        _refuseBid(bad, asked);
        asked = request();
        asked.slots = 65_536;
        _refuseBid(bad, asked);
        asked = request();
        asked.acceptBy = asked.start + 1;
        _refuseBid(bad, asked);
        asked = request();
        asked.start = uint40(type(uint32).max) + 1;
        _refuseBid(bad, asked);
        asked = request();
        asked.acceptBy = uint40(vm.getBlockTimestamp());
        _refuseBid(abi.encodeWithSelector(ILeases.TooLate.selector, asked.acceptBy), asked);
    }

    function test_only_the_named_operator_accepts_in_time_while_active() public {
        vm.prank(tenant);
        bytes32 id = leases.bid(request());
        vm.expectRevert(abi.encodeWithSelector(ILeases.NotParty.selector, MAKER));
        vm.prank(MAKER);
        leases.accept(id, MAKER);
        vm.expectRevert(abi.encodeWithSelector(ILeases.NotParty.selector, MAKER));
        vm.prank(MAKER);
        leases.accept(id, host);
        staking.jail(host, uint40(vm.getBlockTimestamp() + 10 days));
        vm.expectRevert(abi.encodeWithSelector(ILeases.NotActive.selector, host));
        vm.prank(host);
        leases.accept(id, host);
        uint256 acceptBy = leases.leases(id).acceptBy;
        vm.warp(acceptBy);
        vm.expectRevert(abi.encodeWithSelector(ILeases.TooLate.selector, acceptBy));
        vm.prank(host);
        leases.accept(id, host);
    }

    function test_only_its_parties_cancel_quit_and_vacate() public {
        vm.prank(tenant);
        bytes32 open = leases.bid(request());
        bytes32 id = running();
        bytes memory why = abi.encodeWithSelector(ILeases.NotParty.selector, MAKER);
        vm.expectRevert(why);
        vm.prank(MAKER);
        leases.cancel(open);
        vm.expectRevert(why);
        vm.prank(MAKER);
        leases.quit(id);
        vm.expectRevert(why);
        vm.prank(MAKER);
        leases.vacate(id);
        vm.prank(COLD);
        leases.quit(id);
    }

    function test_an_ended_lease_does_nothing_more() public {
        bytes32 id = running();
        vm.prank(host);
        leases.quit(id);
        bytes memory ended = abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Ended);
        vm.expectRevert(ended);
        vm.prank(host);
        leases.quit(id);
        vm.expectRevert(ended);
        vm.prank(tenant);
        leases.vacate(id);
        vm.expectRevert(ended);
        leases.finish(id);
        vm.expectRevert(ended);
        leases.collect(id, 1, "");
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.None));
        leases.finish(keccak256("no lease"));
    }
}
