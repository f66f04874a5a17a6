// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Coins} from "../../src/Coins.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {Puppet, TricksterCoin} from "./Accomplices.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice What a tenant, a host or a passer-by may try against a lease. Each test says the attack.
contract LeaseAttacksTest is MarketKit {
    uint256 private constant PRICE = 2 * 3 * 3_600;
    TricksterCoin private trickster;

    function setUp() public {
        trickster = new TricksterCoin(1e10 * uint256(COIN));
        deployMarketOn(trickster);
        vm.prank(COLD);
        coin.approve(address(leases), type(uint256).max);
    }

    function _refuseServed(bytes32 id, uint32 served, bytes memory signature) private {
        vm.expectRevert(abi.encodeWithSelector(ILeases.BadServed.selector, served));
        leases.collect(id, served, signature);
    }

    // ---- by the host

    function test_attack_collect_more_than_the_lease_has_run() public {
        bytes32 id = running();
        bytes memory tenMinutes = signServed(id, 600);
        bytes memory tooLong = signServed(id, 3_601);
        _refuseServed(id, 600, tenMinutes);
        skip(1 hours + 599);
        _refuseServed(id, 600, tenMinutes);
        skip(1);
        leases.collect(id, 600, tenMinutes);
        skip(2 hours);
        _refuseServed(id, 3_601, tooLong);
    }

    function test_attack_collect_with_the_signature_for_another_lease_number_chain_or_contract() public {
        bytes32 id = running();
        bytes32 other = running();
        skip(2 hours);
        _refuseServed(id, 600, signServed(other, 600));
        _refuseServed(id, 601, signServed(id, 600));
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes memory otherChain = signServed(id, 600);
        vm.chainId(here);
        _refuseServed(id, 600, otherChain);
        bytes32 bare = keccak256(abi.encode(keccak256("Served(bytes32 lease,uint32 served)"), id, uint32(600)));
        _refuseServed(id, 600, sign65(TENANT_KEY, bare));
        _refuseServed(id, 600, sign65(HOST_KEY, leases.servedDigest(id, 600)));
        _refuseServed(id, 600, "");
    }

    function test_attack_collect_the_same_seconds_twice() public {
        bytes32 id = running();
        skip(2 hours);
        bytes memory signature = signServed(id, 600);
        bytes memory less = signServed(id, 599);
        leases.collect(id, 600, signature);
        _refuseServed(id, 600, signature);
        _refuseServed(id, 599, less);
    }

    function test_attack_accept_twice_or_after_a_cancel_or_for_another() public {
        bytes32 id = running();
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Running));
        vm.prank(host);
        leases.accept(id, host);
        vm.prank(tenant);
        bytes32 gone = leases.bid(request());
        vm.prank(tenant);
        leases.cancel(gone);
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Ended));
        vm.prank(host);
        leases.accept(gone, host);
        ILeases.Request memory forAnother = request();
        forAnother.host = MAKER;
        vm.prank(tenant);
        bytes32 named = leases.bid(forAnother);
        vm.expectRevert(abi.encodeWithSelector(ILeases.NotParty.selector, host));
        vm.prank(host);
        leases.accept(named, host);
    }

    function test_attack_collect_after_quitting() public {
        bytes32 id = running();
        skip(2 hours);
        bytes memory signature = signServed(id, 3_600);
        vm.prank(host);
        leases.quit(id);
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Ended));
        leases.collect(id, 3_600, signature);
    }

    function test_attack_sign_for_the_time_after_the_tenant_left() public {
        bytes32 id = running();
        skip(1 hours + 600);
        vm.prank(tenant);
        leases.vacate(id);
        skip(600);
        // A signature that the tenant gave ahead of time pays for no second after it has left.
        _refuseServed(id, 601, signServed(id, 601));
        collect(id, 600);
    }

    // ---- by the tenant

    function test_attack_vacate_to_void_a_signature_already_given() public {
        bytes32 id = running();
        skip(1 hours + 1_800);
        bytes memory signature = signServed(id, 1_800);
        vm.prank(tenant);
        leases.vacate(id);
        skip(1 days - 1);
        uint256 had = coin.balanceOf(host);
        leases.collect(id, 1_800, signature);
        eq(coin.balanceOf(host) - had, PRICE / 2, "paid all the same");
    }

    function test_a_host_that_sleeps_for_a_day_after_the_tenant_left_loses_what_it_did_not_land() public {
        bytes32 id = running();
        skip(1 hours + 1_800);
        bytes memory signature = signServed(id, 1_800);
        vm.prank(tenant);
        leases.vacate(id);
        uint256 payAt = vm.getBlockTimestamp() + 1 days;
        vm.warp(payAt);
        vm.expectRevert(abi.encodeWithSelector(ILeases.TooLate.selector, payAt));
        leases.collect(id, 1_800, signature);
    }

    function test_attack_vacate_again_and_again_to_keep_the_bond_of_the_host() public {
        bytes32 id = running();
        vm.prank(tenant);
        leases.vacate(id);
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Vacated));
        vm.prank(tenant);
        leases.vacate(id);
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Vacated));
        vm.prank(host);
        leases.quit(id);
    }

    function test_attack_cancel_after_a_host_accepted() public {
        bytes32 id = running();
        vm.expectRevert(abi.encodeWithSelector(ILeases.WrongState.selector, ILeases.State.Running));
        vm.prank(tenant);
        leases.cancel(id);
    }

    function test_attack_wallet_takes_its_signature_back_and_an_account_with_a_key_cannot() public {
        Puppet wallet = new Puppet(tenant);
        coin.transfer(address(wallet), 1_000_000);
        wallet.run(address(coin), abi.encodeCall(coin.approve, (address(leases), type(uint256).max)));
        bytes32 id = abi.decode(wallet.run(address(leases), abi.encodeCall(leases.bid, (request()))), (bytes32));
        vm.prank(host);
        leases.accept(id, host);
        skip(2 hours);
        collect(id, 600);
        wallet.silence();
        // A host that serves a contract risks what it has not landed.
        _refuseServed(id, 1_200, signServed(id, 1_200));
        // An account that signed with its key and then got code that accepts nothing (EIP-7702) pays.
        bytes32 keyed = running();
        skip(2 hours);
        vm.etch(tenant, address(wallet).code);
        collect(keyed, 600);
    }

    function test_attack_price_that_overflows() public {
        ILeases.Request memory huge = request();
        (huge.slots, huge.duration, huge.rate) = (65_535, type(uint32).max, type(uint96).max);
        vm.expectRevert(ILeases.BadLease.selector);
        vm.prank(tenant);
        leases.bid(huge);
        (huge.slots, huge.duration, huge.rate) = (type(uint32).max, type(uint32).max, type(uint96).max);
        vm.expectRevert(ILeases.BadLease.selector);
        vm.prank(tenant);
        leases.bid(huge);
        // 2^96 exactly: one more than fits.
        (huge.slots, huge.duration, huge.rate) = (2, 1 << 31, 1 << 64);
        vm.expectRevert(ILeases.BadLease.selector);
        vm.prank(tenant);
        leases.bid(huge);
    }

    // ---- by the court, the coin, or nobody

    function test_a_host_jailed_after_it_accepted_is_paid_for_what_the_tenant_signs() public {
        bytes32 id = running();
        staking.jail(host, uint40(vm.getBlockTimestamp() + 30 days));
        skip(2 hours);
        uint256 had = coin.balanceOf(host);
        collect(id, 3_600);
        leases.finish(id);
        eq(coin.balanceOf(host) - had, PRICE + 1_001, "price and bond");
    }

    function test_attack_party_frozen_by_the_coin_blocks_nobody() public {
        bytes32 id = running();
        skip(2 hours);
        trickster.freeze(host, true);
        collect(id, 1_800);
        eq(leases.unpaid(host), PRICE / 2, "waits");
        trickster.freeze(tenant, true);
        vm.prank(host);
        leases.quit(id);
        eq(leases.unpaid(host), PRICE / 2 + 501, "with half of its bond");
        eq(leases.unpaid(tenant), PRICE / 2 + 703 + 500, "with half of the host's bond");
        vm.prank(host);
        leases.collectUnpaid(MAKER);
        vm.prank(tenant);
        leases.collectUnpaid(MAKER);
        eq(coin.balanceOf(address(leases)), 0, "nothing is left");
    }

    function test_attack_fee_coin_is_refused_by_bid_and_accept() public {
        trickster.setFee(1);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, PRICE + 703, PRICE + 702));
        vm.prank(tenant);
        leases.bid(request());
        trickster.setFee(0);
        vm.prank(tenant);
        bytes32 id = leases.bid(request());
        trickster.setFee(1);
        vm.expectRevert(abi.encodeWithSelector(Coins.ShortTransfer.selector, 1_001, 1_000));
        vm.prank(host);
        leases.accept(id, host);
    }

    /// @dev Whatever the numbers and however it ends, every wei goes to somebody, and the rounding favours who loses a part.
    function testFuzz_every_wei_is_paid_once_whatever_the_rounding(
        uint96 rate,
        uint96 hostBond,
        uint96 tenantBond,
        uint32 duration,
        uint32 served,
        uint8 end
    ) public {
        ILeases.Request memory asked = request();
        asked.duration = uint32(bound(duration, 1, 365 days));
        asked.rate = uint96(bound(rate, 1, 1e12));
        (asked.hostBond, asked.tenantBond) = (uint96(bound(hostBond, 0, COIN)), uint96(bound(tenantBond, 0, COIN)));
        served = uint32(bound(served, 0, asked.duration - 1));
        (uint256 tenantHad, uint256 hostHad) = (coin.balanceOf(tenant), coin.balanceOf(host));
        vm.prank(tenant);
        bytes32 id = leases.bid(asked);
        vm.prank(host);
        leases.accept(id, host);
        vm.warp(uint256(asked.start) + served);
        if (served != 0) collect(id, served);
        _end(id, end % 3, asked);
        uint256 cost = uint256(asked.rate) * asked.slots * served;
        uint256 hostPart = uint256(asked.hostBond) * (asked.duration - served) / asked.duration;
        uint256 tenantPart = uint256(asked.tenantBond) * (asked.duration - served) / asked.duration;
        uint256 tenantHas = tenantHad - cost + (end % 3 == 0 ? hostPart : 0) - (end % 3 != 0 ? tenantPart : 0);
        uint256 hostHas = hostHad + cost - (end % 3 != 1 ? hostPart : 0) + (end % 3 == 1 ? tenantPart : 0);
        eq(coin.balanceOf(tenant), tenantHas, "tenant");
        eq(coin.balanceOf(host), hostHas, "host");
        eq(coin.balanceOf(Coins.SINK), end % 3 == 2 ? hostPart + tenantPart : 0, "destroyed");
        eq(coin.balanceOf(address(leases)), 0, "nothing is left");
    }

    function _end(bytes32 id, uint256 how, ILeases.Request memory asked) private {
        if (how == 0) {
            vm.prank(host);
            leases.quit(id);
            return;
        }
        if (how == 1) {
            vm.prank(tenant);
            leases.vacate(id);
        }
        vm.warp(uint256(asked.start) + asked.duration + 1 days);
        leases.finish(id);
    }
}
