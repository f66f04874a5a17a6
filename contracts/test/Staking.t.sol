// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IStaking} from "../src/interfaces/IStaking.sol";
import {Kit} from "./Kit.sol";

contract StakingTest is Kit {
    address private constant COLD = address(0xC01D);

    function setUp() public {
        deployAll();
        coin.transfer(COLD, 1_000 * COIN);
        vm.prank(COLD);
        coin.approve(address(staking), type(uint256).max);
    }

    function _stake(uint96 amount) private {
        bytes memory consent = sign65(HOST_KEY, staking.stakeConsentDigest(COLD));
        vm.prank(COLD);
        staking.stake(host, amount, consent);
    }

    function _operator() private view returns (uint256 stake, uint256 unbonding, uint256 unlockAt, uint256 jailed) {
        (, stake, unbonding, unlockAt, jailed,) = staking.operators(host);
    }

    function test_the_operator_consents_once_to_one_owner_for_ever() public {
        bytes memory consent = sign65(HOST_KEY, staking.stakeConsentDigest(COLD));
        vm.expectRevert(abi.encodeWithSelector(IStaking.BadConsent.selector, host));
        staking.stake(host, MIN_STAKE, consent);
        vm.prank(COLD);
        staking.stake(host, MIN_STAKE, consent);
        vm.prank(COLD);
        staking.stake(host, COIN, "");
        vm.assertEq(staking.ownerOf(host), COLD, "owner");
        vm.expectRevert(abi.encodeWithSelector(IStaking.NotOwner.selector, address(this)));
        staking.stake(host, COIN, "");
    }

    function test_an_operator_may_own_itself() public {
        coin.transfer(host, MIN_STAKE);
        vm.prank(host);
        coin.approve(address(staking), MIN_STAKE);
        vm.prank(host);
        staking.stake(host, MIN_STAKE, "");
        vm.assertEq(staking.ownerOf(host), host, "owner");
        vm.assertTrue(staking.isActive(host), "active");
    }

    function test_active_means_enough_stake() public {
        _stake(MIN_STAKE - 1);
        eq(staking.operatorCount(), 0, "too little");
        _stake(1);
        eq(staking.operatorCount(), 1, "enough");
        vm.assertEq(staking.operatorAt(0), host, "listed");
        vm.prank(COLD);
        staking.requestUnstake(host, 1);
        eq(staking.operatorCount(), 0, "left");
    }

    function test_unstaking_waits_for_the_cooldown_and_starts_again_with_a_new_request() public {
        _stake(3 * MIN_STAKE);
        vm.expectRevert(abi.encodeWithSelector(IStaking.NotOwner.selector, host));
        vm.prank(host);
        staking.requestUnstake(host, MIN_STAKE);
        vm.prank(COLD);
        staking.requestUnstake(host, MIN_STAKE);
        skip(COOLDOWN - 1);
        vm.expectRevert(abi.encodeWithSelector(IStaking.TooEarly.selector, vm.getBlockTimestamp() + 1));
        staking.finishUnstake(host);
        vm.prank(COLD);
        staking.requestUnstake(host, MIN_STAKE);
        skip(1);
        vm.expectRevert();
        staking.finishUnstake(host);
        skip(COOLDOWN);
        staking.finishUnstake(host);
        eq(coin.balanceOf(COLD), 900 * COIN, "two of three are back, at the owner");
        vm.expectRevert(IStaking.NothingUnbonding.selector);
        staking.finishUnstake(host);
        vm.expectRevert(abi.encodeWithSelector(IStaking.OverStake.selector, MIN_STAKE));
        vm.prank(COLD);
        staking.requestUnstake(host, MIN_STAKE + 1);
    }

    function test_only_the_court_slashes_jails_or_counts_disputes() public {
        _stake(MIN_STAKE);
        bytes memory reason = abi.encodeWithSelector(IStaking.NotCourt.selector, address(this));
        vm.expectRevert(reason);
        staking.slash(host, 1, 0);
        vm.expectRevert(reason);
        staking.jail(host, type(uint40).max);
        vm.expectRevert(reason);
        staking.openDispute(host);
        vm.expectRevert(reason);
        staking.closeDispute(host);
    }

    function test_a_slash_takes_stake_then_unbonding_and_burns_its_part() public {
        _stake(2 * MIN_STAKE);
        vm.prank(COLD);
        staking.requestUnstake(host, MIN_STAKE);
        uint256 supply = coin.totalSupply();
        vm.prank(address(court));
        staking.slash(host, MIN_STAKE + 7, 5);
        (uint256 stake, uint256 unbonding,,) = _operator();
        eq(stake, 0, "stake first");
        eq(unbonding, MIN_STAKE - 7, "then what is leaving");
        eq(supply - coin.totalSupply(), 5, "burnt");
        eq(coin.balanceOf(address(court)), MIN_STAKE + 2, "to the court");
        eq(staking.operatorCount(), 0, "inactive");
        vm.expectRevert();
        vm.prank(address(court));
        staking.slash(host, MIN_STAKE, 0);
    }

    function test_an_open_dispute_holds_what_is_leaving() public {
        _stake(MIN_STAKE);
        vm.prank(COLD);
        staking.requestUnstake(host, MIN_STAKE);
        vm.prank(address(court));
        staking.openDispute(host);
        skip(COOLDOWN);
        vm.expectRevert(abi.encodeWithSelector(IStaking.DisputeOpen.selector, 1));
        staking.finishUnstake(host);
        vm.prank(address(court));
        staking.closeDispute(host);
        staking.finishUnstake(host);
    }

    function test_jail_takes_off_the_list_until_somebody_calls_unjail() public {
        _stake(MIN_STAKE);
        uint40 until = uint40(vm.getBlockTimestamp() + 10);
        vm.prank(address(court));
        staking.jail(host, until);
        vm.assertTrue(!staking.isActive(host), "jailed");
        _stake(COIN);
        vm.assertTrue(!staking.isActive(host), "more stake does not free it");
        vm.expectRevert(abi.encodeWithSelector(IStaking.TooEarly.selector, until));
        staking.unjail(host);
        skip(10);
        staking.unjail(host);
        vm.assertTrue(staking.isActive(host), "free");
    }

    /// forge-config: default.fuzz.runs = 16
    /// forge-config: long.fuzz.runs = 10000
    function test_the_list_stays_whole_when_members_leave(uint8 leaver) public {
        for (uint256 i = 1; i <= 5; ++i) {
            address operator = vm.addr(i);
            staking.stake(operator, MIN_STAKE, sign65(i, staking.stakeConsentDigest(address(this))));
        }
        address gone = vm.addr(bound(leaver, 1, 5));
        staking.requestUnstake(gone, 1);
        eq(staking.operatorCount(), 4, "one fewer");
        for (uint256 i = 0; i < 4; ++i) {
            address operator = staking.operatorAt(i);
            vm.assertTrue(operator != gone && staking.isActive(operator), "others stay");
            for (uint256 j = 0; j < i; ++j) {
                vm.assertTrue(staking.operatorAt(j) != operator, "each once");
            }
        }
        staking.stake(gone, 1, "");
        vm.assertEq(staking.operatorAt(4), gone, "back at the end");
    }

    /// @dev Who was at which place in which second, kept the plain way.
    address[][] private _history;

    /// forge-config: default.fuzz.runs = 32
    /// forge-config: long.fuzz.runs = 10000
    function test_the_past_of_the_list_never_changes(uint256 seed) public {
        uint256 start = vm.getBlockTimestamp();
        for (uint256 i = 0; i < 30; ++i) {
            uint256 dice = uint256(keccak256(abi.encode(seed, i)));
            uint256 key = 1 + dice % 5;
            address operator = vm.addr(key);
            if (staking.isActive(operator)) staking.requestUnstake(operator, MIN_STAKE);
            else staking.stake(operator, MIN_STAKE, sign65(key, staking.stakeConsentDigest(address(this))));
            _endSeconds((dice >> 8) % 3);
        }
        _endSeconds(1);
        for (uint256 n = 0; n < _history.length; ++n) {
            uint40 moment = uint40(start + n);
            eq(staking.operatorCountAt(moment), _history[n].length, "how many");
            for (uint256 place = 0; place < _history[n].length; ++place) {
                (address operator, address owner) = staking.candidate(place, moment);
                vm.assertEq(operator, _history[n][place], "who");
                vm.assertEq(owner, address(this), "whose");
            }
            (address nobody,) = staking.candidate(_history[n].length, moment);
            vm.assertEq(nobody, address(0), "past the end");
        }
        eq(staking.operatorCountAt(uint40(start - 1)), 0, "before everything");
    }

    /// @dev A second that ends remembers the list as it is then; several actions may share one.
    function _endSeconds(uint256 count) private {
        for (uint256 i = 0; i < count; ++i) {
            address[] memory list = new address[](staking.operatorCount());
            for (uint256 place = 0; place < list.length; ++place) {
                list[place] = staking.operatorAt(place);
            }
            _history.push(list);
            skip(1);
        }
    }

    function test_ownership_counts_from_the_second_it_began() public {
        uint40 now_ = uint40(vm.getBlockTimestamp());
        _stake(COIN);
        skip(5);
        _stake(COIN);
        vm.assertEq(staking.ownerAt(host, now_ - 1), address(0), "not yet");
        vm.assertEq(staking.ownerAt(host, now_), COLD, "from then on");
        vm.assertEq(staking.ownerAt(vm.addr(0x999), now_), address(0), "nobody's");
    }
}
