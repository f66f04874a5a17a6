// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

import {AuditCourt} from "../src/AuditCourt.sol";
import {Parameters} from "../src/Parameters.sol";
import {Staking} from "../src/Staking.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {IParameters} from "../src/interfaces/IParameters.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice What the governor, a real timelock, may do, when, and that the worst of it stays within what deployment fixed.
contract ParametersTest is CourtKit {
    uint256 private constant DELAY = 2 days;
    address private constant PROPOSER = address(0x9009);
    TimelockController private timelock;

    function setUp() public {
        deployMoney();
        address[] memory proposers = new address[](1);
        proposers[0] = PROPOSER;
        timelock = new TimelockController(DELAY, proposers, new address[](1), address(0));
        parameters = new Parameters(address(timelock), courtParams(), marketParams());
        address expected = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        staking = new Staking(coin, expected, MIN_STAKE, COOLDOWN);
        court = new AuditCourt(coin, staking, settlement, parameters);
        coin.approve(address(staking), type(uint256).max);
        enrol(8);
    }

    // ---- the timelock

    function _schedule(bytes memory data) private {
        vm.prank(PROPOSER);
        timelock.schedule(address(parameters), 0, data, 0, 0, DELAY);
    }

    function _execute(bytes memory data) private returns (bool ok) {
        bytes memory call_ = abi.encodeCall(timelock.execute, (address(parameters), 0, data, 0, 0));
        (ok,) = address(timelock).call(call_);
    }

    function _set(IParameters.CourtParams memory p) private returns (bool) {
        bytes memory data = abi.encodeCall(IParameters.setCourt, (p));
        _schedule(data);
        skip(DELAY);
        return _execute(data);
    }

    function _version() private view returns (uint256 version) {
        (version,) = parameters.court();
    }

    function test_a_change_waits_for_the_timelock_and_then_anyone_carries_it_out() public {
        IParameters.CourtParams memory p = courtParams();
        p.bond = 20 * COIN;
        bytes memory data = abi.encodeCall(IParameters.setCourt, (p));
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, address(this)));
        parameters.setCourt(p);
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, PROPOSER));
        vm.prank(PROPOSER);
        parameters.setCourt(p);
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, PROPOSER));
        vm.prank(PROPOSER);
        parameters.setMarket(marketParams());
        vm.assertTrue(!_execute(data), "never scheduled");
        vm.expectRevert();
        timelock.schedule(address(parameters), 0, data, 0, 0, DELAY);
        vm.expectRevert();
        vm.prank(PROPOSER);
        timelock.schedule(address(parameters), 0, data, 0, 0, DELAY - 1);
        _schedule(data);
        skip(DELAY - 1);
        vm.assertTrue(!_execute(data), "too early");
        eq(court.params().bond, 10 * COIN, "still");
        skip(1);
        vm.assertTrue(_execute(data), "now");
        eq(court.params().bond, 20 * COIN, "the new one");
        eq(_version(), 1, "counted");
        eq(parameters.courtAt(0).bond, 10 * COIN, "the old one stays readable");
        vm.assertTrue(!_execute(data), "once");
        vm.expectRevert(abi.encodeWithSelector(IParameters.UnknownVersion.selector, 2));
        parameters.courtAt(2);
        vm.expectRevert(abi.encodeWithSelector(IParameters.UnknownVersion.selector, 1));
        parameters.marketAt(1);
    }

    // ---- bounds

    function _refused(IParameters.CourtParams memory p, string memory why) private {
        vm.expectRevert(IParameters.BadParams.selector);
        vm.prank(address(timelock));
        parameters.setCourt(p);
        eq(_version(), 0, why);
    }

    function test_against_the_accused_nothing_gets_worse_by_one() public {
        IParameters.CourtParams memory p = courtParams();
        p.commitWindow -= 1;
        _refused(p, "commit window");
        p = courtParams();
        p.revealWindow -= 1;
        _refused(p, "reveal window");
        p = courtParams();
        p.appealWindow -= 1;
        _refused(p, "appeal window");
        p = courtParams();
        p.answerWindow -= 1;
        _refused(p, "answer window");
        p = courtParams();
        p.drawDelayBlocks -= 1;
        _refused(p, "draw delay");
        p = courtParams();
        p.slashBps += 1;
        _refused(p, "slash");
        p = courtParams();
        p.jailTime += 1;
        _refused(p, "jail");
        p = courtParams();
        p.receiptMaxAge += 1;
        _refused(p, "receipt age");
        p = courtParams();
        p.rewardBps += 1;
        _refused(p, "reward");
        p = courtParams();
        p.finderBps += 1;
        _refused(p, "finder's fee");
        p = courtParams();
        p.bond = p.bond / 4 - 1;
        _refused(p, "bond");
        p = courtParams();
        p.voteDeposit -= 1;
        _refused(p, "what a wrong vote costs");
        p = courtParams();
        p.burnBps = 999;
        _refused(p, "burn");
        p = courtParams();
        p.committeeSize = 2;
        _refused(p, "committee");
        p = courtParams();
        (p.committeeSize, p.quorum) = (4, 2);
        _refused(p, "two of four are no majority");
    }

    function test_nothing_is_stretched_past_its_double() public {
        IParameters.CourtParams memory p = courtParams();
        p.commitWindow = 2 * p.commitWindow + 1;
        _refused(p, "commit window");
        p = courtParams();
        p.revealWindow = 2 * p.revealWindow + 1;
        _refused(p, "reveal window");
        p = courtParams();
        p.appealWindow = 2 * p.appealWindow + 1;
        _refused(p, "appeal window");
        p = courtParams();
        p.answerWindow = 2 * p.answerWindow + 1;
        _refused(p, "answer window");
        p = courtParams();
        p.drawDelayBlocks = 2 * p.drawDelayBlocks + 1;
        _refused(p, "draw delay");
        p = courtParams();
        p.bond = 4 * p.bond + 1;
        _refused(p, "bond");
        p = courtParams();
        p.voteDeposit = 4 * p.voteDeposit + 1;
        _refused(p, "what a vote costs");
        p = courtParams();
        (p.bond, p.voteDeposit) = (p.bond / 4, p.bond / 4 + 1);
        _refused(p, "a vote risks no more than a bond");
        p = courtParams();
        (p.committeeSize, p.quorum) = (8, 5);
        _refused(p, "committee");
        p = courtParams();
        p.receiptMaxAge = 0;
        _refused(p, "no receipt at all");
    }

    /// @notice Steps are measured from deployment, not from the step before.
    function test_small_steps_lead_no_further_than_one() public {
        IParameters.CourtParams memory p = courtParams();
        p.bond = p.bond / 4;
        vm.assertTrue(_set(p), "a fourth");
        p.bond -= 1;
        vm.assertTrue(!_set(p), "no further");
        p.slashBps = 100;
        p.bond = courtParams().bond;
        vm.assertTrue(_set(p), "milder");
        p.slashBps = courtParams().slashBps;
        vm.assertTrue(_set(p), "and back");
    }

    /// @notice Whatever passes keeps the accused where deployment put it, and the court's stake horizon true.
    function test_every_version_that_passes_is_within_bounds(IParameters.CourtParams memory p) public {
        IParameters.CourtParams memory first = courtParams();
        // Half of the fields near deployment's, or hardly anything would pass.
        p.commitWindow = first.commitWindow + p.commitWindow % 700;
        p.revealWindow = first.revealWindow + p.revealWindow % 350;
        p.appealWindow = first.appealWindow + p.appealWindow % 90_000;
        p.answerWindow = first.answerWindow + p.answerWindow % 180_000;
        p.drawDelayBlocks = 1 + p.drawDelayBlocks % 5;
        p.committeeSize = 2 + p.committeeSize % 6;
        p.quorum = 2 + p.quorum % 6;
        p.bond = p.bond % (50 * COIN);
        p.voteDeposit = p.voteDeposit % (6 * COIN);
        p.slashBps %= 6_000;
        p.burnBps %= 8_000;
        p.rewardBps %= 3_000;
        p.finderBps %= 1_500;
        p.receiptMaxAge %= 4 days;
        p.jailTime %= 35 days;
        vm.prank(address(timelock));
        (bool ok,) = address(parameters).call(abi.encodeCall(IParameters.setCourt, (p)));
        (, p) = parameters.court();
        uint256 dispute = 3 * (uint256(p.commitWindow) + p.revealWindow + p.appealWindow);
        vm.assertLe(dispute + p.receiptMaxAge, parameters.longestDispute() + parameters.oldestReceipt(), "horizon");
        vm.assertTrue(staking.cooldown() > parameters.longestDispute() + parameters.oldestReceipt(), "stake stays");
        vm.assertLe(p.slashBps, first.slashBps, "slash");
        vm.assertTrue(p.voteDeposit >= first.voteDeposit && p.voteDeposit <= p.bond, "what a wrong vote costs");
        vm.assertLe(1_000, p.burnBps, "burn");
        vm.assertLe(p.committeeSize, 2 * p.quorum - 1, "a majority");
        vm.assertTrue(p.quorum >= first.quorum && p.committeeSize >= first.committeeSize, "committee");
        vm.assertTrue(ok == (_version() == 1), "counted when written");
    }

    function test_the_market_moves_within_a_tenth_and_ten_times() public {
        IParameters.MarketParams memory p = marketParams();
        p.shareDeposit = COIN / 10;
        p.promotionDeposit = 20 * COIN;
        p.promotionReserve = 50 * COIN;
        p.promotionSlots = 32;
        p.lineageBps = 5_000;
        vm.prank(address(timelock));
        parameters.setMarket(p);
        (uint32 version, IParameters.MarketParams memory now_) = parameters.market();
        eq(version, 1, "written");
        eq(now_.promotionReserve, 50 * COIN, "ten times");
        eq(parameters.marketAt(0).promotionReserve, 5 * COIN, "the old one stays readable");
        for (uint256 i = 0; i < 9; ++i) {
            p = marketParams();
            if (i == 0) p.shareDeposit = COIN / 10 - 1;
            if (i == 1) p.shareDeposit = 10 * COIN + 1;
            if (i == 2) p.promotionDeposit = COIN / 5 - 1;
            if (i == 3) p.promotionDeposit = 20 * COIN + 1;
            if (i == 4) p.promotionReserve = COIN / 2 - 1;
            if (i == 5) p.promotionReserve = 50 * COIN + 1;
            if (i == 6) p.promotionSlots = 0;
            if (i == 7) p.promotionSlots = 33;
            if (i == 8) p.lineageBps = 5_001;
            vm.expectRevert(IParameters.BadParams.selector);
            vm.prank(address(timelock));
            parameters.setMarket(p);
        }
    }

    function test_deployment_refuses_what_contradicts_itself() public {
        IParameters.CourtParams memory p;
        for (uint256 i = 0; i < 16; ++i) {
            p = courtParams();
            if (i == 0) p.bond = 0;
            if (i == 1) p.bond = (type(uint96).max >> 2) + 1;
            if (i == 2) p.slashBps = 0;
            if (i == 3) p.slashBps = 10_001;
            if (i == 4) p.burnBps = 7_001;
            if (i == 5) p.burnBps = 999;
            if (i == 6) (p.committeeSize, p.quorum) = (8, 5);
            if (i == 7) p.quorum = 4;
            if (i == 8) (p.committeeSize, p.quorum) = (1, 1);
            if (i == 9) p.drawDelayBlocks = 0;
            if (i == 10) p.drawDelayBlocks = 201;
            if (i == 11) p.commitWindow = 0;
            if (i == 12) p.answerWindow = 0;
            if (i == 13) p.receiptMaxAge = 0;
            if (i == 14) p.voteDeposit = 0;
            if (i == 15) p.voteDeposit = p.bond + 1;
            vm.expectRevert(IParameters.BadParams.selector);
            new Parameters(address(timelock), p, marketParams());
        }
        vm.expectRevert(IParameters.BadParams.selector);
        new Parameters(address(0), courtParams(), marketParams());
    }

    // ---- open disputes, stakes and deposits

    /// @dev As hard on everybody as the bounds allow.
    function _hostile() private pure returns (IParameters.CourtParams memory p) {
        p = courtParams();
        p.bond *= 4;
        p.slashBps = 1;
        p.rewardBps = 0;
        p.finderBps = 0;
        (p.committeeSize, p.quorum) = (7, 7);
        p.drawDelayBlocks *= 2;
        p.commitWindow *= 2;
        p.revealWindow *= 2;
        p.appealWindow *= 2;
        p.receiptMaxAge = 1;
        p.jailTime = 0;
    }

    function test_an_open_dispute_keeps_its_parameters_to_the_end() public {
        bytes32 id = openDispute(receipt());
        vm.prank(address(timelock));
        parameters.setCourt(_hostile());
        eq(court.params().bond, 40 * COIN, "for new disputes");
        vm.assertEq(keccak256(abi.encode(court.paramsOf(id))), keccak256(abi.encode(courtParams())), "not for this one");
        eq(rule(id, 3, GUILTY).length, 3, "three jurors");
        eq(court.disputes(id).appealBy, vm.getBlockTimestamp() + 1 days, "the window that it opened with");
        uint256 before = coin.balanceOf(address(this));
        court.appeal(id);
        eq(before - coin.balanceOf(address(this)), 20 * COIN, "twice the bond that it opened with");
        rule(id, 7, GUILTY);
        pastAppeal(id);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "half");
        eq(unsettled(), 0, "nothing stays");
        (,,,, uint40 jailedUntil,) = staking.operators(host);
        eq(jailedUntil, vm.getBlockTimestamp() + 30 days, "jailed as it opened");
    }

    function test_a_larger_quorum_is_more_than_a_majority() public {
        IParameters.CourtParams memory p = courtParams();
        p.quorum = 3;
        vm.prank(address(timelock));
        parameters.setCourt(p);
        bytes32 id = openDispute(receipt());
        drawn(id);
        uint8[] memory votes = new uint8[](3);
        (votes[0], votes[1], votes[2]) = (GUILTY, GUILTY, HONEST);
        ballot(id, votes);
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "two of three are not enough");
        openDispute(receipt());
        rule(id, 3, GUILTY);
        vm.assertTrue(court.disputes(id).verdict == GUILTY, "all three are");
    }

    function test_a_void_dispute_that_opens_again_does_so_under_the_version_in_force() public {
        bytes32 id = openDispute(receipt());
        vm.prank(address(timelock));
        parameters.setCourt(_hostile());
        drawn(id);
        skip(900);
        court.tally(id);
        eq(coin.balanceOf(challenger), BANKROLL, "the bond that it paid");
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "void");
        // Receipts are one second old at most now.
        openDispute(receipt());
        id = court.disputeId(host, receipt().job, 1, challenger);
        eq(court.paramsOf(id).bond, 40 * COIN, "the version in force");
        eq(BANKROLL - coin.balanceOf(challenger), 40 * COIN, "and its bond");
    }

    function test_a_hostile_governor_holds_nobodys_money() public {
        fund(payer, 5 * COIN);
        uint256 mine = coin.balanceOf(address(this));
        staking.requestUnstake(host, HOST_STAKE);
        vm.prank(payer);
        settlement.requestExit(5 * COIN);
        for (uint256 i = 0; i < 50; ++i) {
            vm.prank(address(timelock));
            parameters.setCourt(_hostile());
        }
        skip(COOLDOWN);
        staking.finishUnstake(host);
        eq(coin.balanceOf(address(this)) - mine, HOST_STAKE, "the stake leaves");
        vm.prank(payer);
        settlement.finishExit();
        eq(coin.balanceOf(payer), 5 * COIN, "the deposit leaves");
    }
}
