// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AgentRegistry} from "../src/AgentRegistry.sol";
import {LineageCourt} from "../src/LineageCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {ILineageCourt} from "../src/interfaces/ILineageCourt.sol";
import {IParameters} from "../src/interfaces/IParameters.sol";
import {LineageKit} from "./LineageKit.sol";

/// @notice Contests of lineage from the claim to the adoption, and every way in which one must not get there.
contract LineageCourtTest is LineageKit {
    function setUp() public {
        deployLineage(8);
    }

    function _phase(bytes32 id) private view returns (ICommittee.Phase) {
        return lineage.disputes(id).phase;
    }

    function _isEmpty() private view {
        eq(unsettled(), 0, "nothing stays");
    }

    function _notContestable(address who, bytes32 agent, bytes32 parent) private {
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NotContestable.selector, agent));
        contestAs(who, agent, parent);
    }

    // ---- contesting

    function test_only_the_owner_of_an_older_agent_contests_a_root() public {
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NotOwner.selector, challenger));
        contestAs(challenger, CHILD, PARENT);
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NotOwner.selector, MAKER));
        contestAs(MAKER, CHILD, keccak256("nobody's"));
        _notContestable(MAKER, keccak256("nobody's"), PARENT);
        _notContestable(MAKER, PARENT, PARENT);
        _notContestable(deriver, PARENT, CHILD);
        registerAs(deriver, keccak256("twin"), 0);
        registerAs(MAKER, keccak256("twin parent"), 0);
        _notContestable(MAKER, keccak256("twin"), keccak256("twin parent"));
        registerAs(deriver, keccak256("grandchild"), CHILD);
        _notContestable(MAKER, keccak256("grandchild"), PARENT);
    }

    function test_a_contest_is_open_once() public {
        bytes32 id = contested();
        vm.assertEq(id, keccak256(abi.encode(CHILD, PARENT, MAKER)), "id");
        (bytes32 agent, bytes32 parent, uint40 answerBy) = lineage.contests(id);
        vm.assertTrue(agent == CHILD && parent == PARENT, "what");
        eq(answerBy, vm.getBlockTimestamp() + 2 days, "by when");
        ICommittee.DisputeView memory d = lineage.disputes(id);
        vm.assertTrue(d.phase == ICommittee.Phase.Asked && d.accused == deriver && d.challenger == MAKER, "who");
        vm.assertEq(d.subject, keccak256(abi.encode(CHILD, PARENT, EVIDENCE)), "the claim");
        eq(BANKROLL - coin.balanceOf(MAKER), bond(), "bond");
        _notContestable(MAKER, CHILD, PARENT);
    }

    function test_only_the_accused_answers_once_and_in_time() public {
        bytes32 id = contested();
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NotOwner.selector, MAKER));
        vm.prank(MAKER);
        lineage.answer(id);
        bytes32 none = keccak256("none");
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NoAnswerDue.selector, none));
        lineage.answer(none);
        skip(2 days);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.TooLate.selector, vm.getBlockTimestamp()));
        vm.prank(deriver);
        lineage.answer(id);
        vm.warp(vm.getBlockTimestamp() - 1);
        vm.prank(deriver);
        lineage.answer(id);
        eq(BANKROLL - coin.balanceOf(deriver), bond(), "the same bond");
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NoAnswerDue.selector, id));
        vm.prank(deriver);
        lineage.answer(id);
    }

    // ---- silence

    function test_silence_admits_and_only_after_the_window() public {
        bytes32 id = contested();
        skip(2 days - 1);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.TooEarly.selector, vm.getBlockTimestamp() + 1));
        lineage.uphold(id);
        skip(1);
        vm.expectEmit(true, true, true, true, address(lineage));
        emit ILineageCourt.Upheld(id, CHILD, PARENT);
        lineage.uphold(id);
        vm.assertEq(parentOf(CHILD), PARENT, "adopted");
        eq(coin.balanceOf(MAKER), BANKROLL, "bond back");
        vm.assertTrue(_phase(id) == ICommittee.Phase.Closed, "closed");
        _isEmpty();
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NoAnswerDue.selector, id));
        lineage.uphold(id);
        _notContestable(MAKER, CHILD, PARENT);
    }

    function test_an_answered_contest_is_not_upheld_by_time() public {
        bytes32 id = answered();
        skip(365 days);
        vm.expectRevert(abi.encodeWithSelector(ILineageCourt.NoAnswerDue.selector, id));
        lineage.uphold(id);
    }

    /// @notice Whoever sends an upholding with too little gas for the registry changes nothing.
    /// forge-config: default.fuzz.runs = 256
    /// forge-config: long.fuzz.runs = 10000
    function test_no_amount_of_gas_makes_a_contest_moot(uint256 gas_, bool ruled) public {
        bytes32 id = ruled ? answered() : contested();
        if (ruled) {
            rule(id, 3, GUILTY);
            pastAppeal(id);
        } else {
            skip(2 days);
        }
        bytes memory data = ruled ? abi.encodeCall(lineage.execute, (id)) : abi.encodeCall(lineage.uphold, (id));
        (bool ok,) = address(lineage).call{gas: bound(gas_, 20_000, 400_000)}(data);
        bool closed = _phase(id) == ICommittee.Phase.Closed;
        vm.assertTrue(ok == closed && closed == (parentOf(CHILD) == PARENT), "closed and adopted, or neither");
    }

    // ---- rulings

    function test_guilty_adopts_after_the_appeal_window_and_pays_the_challenger() public {
        bytes32 id = answered();
        address[] memory jurors = rule(id, 3, GUILTY);
        skip(courtParams().appealWindow - 1);
        vm.expectRevert();
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), 0, "not in the window");
        skip(1);
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), PARENT, "adopted");
        uint256 half = bond() / 2;
        eq(coin.balanceOf(MAKER), BANKROLL + half + half % 3, "bond back and half of the other");
        eq(coin.balanceOf(deriver), BANKROLL - bond(), "bond lost");
        eq(coin.balanceOf(staking.ownerOf(jurors[0])), half / 3, "jurors share the rest");
        _isEmpty();
    }

    function test_honest_changes_nothing_and_pays_the_accused() public {
        bytes32 id = answered();
        rule(id, 3, HONEST);
        pastAppeal(id);
        vm.expectEmit(true, true, true, true, address(lineage));
        emit ILineageCourt.Dismissed(id, CHILD, PARENT);
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), 0, "a root");
        uint256 half = bond() / 2;
        eq(coin.balanceOf(deriver), BANKROLL + half + half % 3, "bond back and half of the other");
        eq(coin.balanceOf(MAKER), BANKROLL - bond(), "bond lost");
        _isEmpty();
        _notContestable(MAKER, CHILD, PARENT);
    }

    function test_no_quorum_gives_both_bonds_back_and_may_be_contested_again() public {
        bytes32 id = answered();
        drawn(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        lineage.tally(id);
        vm.assertTrue(_phase(id) == ICommittee.Phase.Void, "void");
        eq(coin.balanceOf(MAKER), BANKROLL, "the challenger's");
        eq(coin.balanceOf(deriver), BANKROLL, "the accused's");
        _isEmpty();
        vm.assertEq(answered(), id, "again");
        eq(lineage.disputes(id).round, 4, "rounds count on");
        rule(id, 3, GUILTY);
        pastAppeal(id);
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), PARENT, "adopted");
        _isEmpty();
    }

    function test_nothing_at_stake_is_ever_slashed() public {
        enrolJuror(0x900, deriver);
        skip(1);
        bytes32 id = answered();
        rule(id, 3, GUILTY);
        pastAppeal(id);
        lineage.execute(id);
        eq(staking.slashable(vm.addr(0x900)), MIN_STAKE, "the accused's operator");
        vm.assertTrue(staking.isActive(vm.addr(0x900)), "not jailed");
        vm.expectRevert();
        vm.prank(address(lineage));
        staking.slash(vm.addr(0x900), 1, 0);
    }

    // ---- appeals

    function test_each_side_appeals_its_loss_with_twice_the_bond() public {
        bytes32 id = answered();
        rule(id, 3, GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, MAKER));
        vm.prank(MAKER);
        lineage.appeal(id);
        vm.prank(deriver);
        lineage.appeal(id);
        eq(BANKROLL - coin.balanceOf(deriver), 3 * bond(), "twice the bond on top");
        eq(rule(id, 7, HONEST).length, 7, "2n + 1");
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, deriver));
        vm.prank(deriver);
        lineage.appeal(id);
        vm.prank(MAKER);
        lineage.appeal(id);
        eq(BANKROLL - coin.balanceOf(MAKER), 5 * bond(), "four times on top");
        // Fifteen are wanted, nine are there: eight jurors and the host of other tests.
        rule(id, 9, GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, deriver));
        vm.prank(deriver);
        lineage.appeal(id);
        pastAppeal(id);
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), PARENT, "adopted");
        // Three jurors of the first round and nine of the third said so.
        uint256 half = 3 * bond() / 2;
        uint256 pot = half + 7 * uint256(courtParams().voteDeposit);
        eq(coin.balanceOf(MAKER), BANKROLL + half + pot % 12, "all back, half of what the other put up");
        eq(coin.balanceOf(deriver), BANKROLL - 3 * bond(), "all lost");
        _isEmpty();
    }

    function test_an_appeal_without_a_quorum_leaves_the_ruling() public {
        bytes32 id = answered();
        rule(id, 3, GUILTY);
        vm.prank(deriver);
        lineage.appeal(id);
        drawn(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        lineage.tally(id);
        lineage.execute(id);
        vm.assertEq(parentOf(CHILD), PARENT, "adopted");
        eq(coin.balanceOf(deriver), BANKROLL - bond(), "the appeal's bond is back, the answer's is not");
        _isEmpty();
    }

    // ---- who judges

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 10000
    function test_neither_owner_judges_nor_what_they_own(bytes32 entropy) public {
        vm.assume(entropy != 0);
        coin.transfer(MAKER, MIN_STAKE);
        enrolJuror(0x901, MAKER);
        enrolJuror(0x902, deriver);
        // The accused is an operator itself, of an owner with another one.
        enrolJuror(DERIVER_KEY, address(0x5050));
        enrolJuror(0x903, address(0x5050));
        skip(1);
        bytes32 id = answered();
        address[] memory jurors = drawnWith(id, entropy);
        for (uint256 i = 0; i < jurors.length; ++i) {
            uint256 owner = uint160(staking.ownerOf(jurors[i]));
            vm.assertTrue((owner >= 0x3000 && owner < 0x3008) || jurors[i] == host, "outsiders");
        }
    }

    // ---- several contests

    function test_the_first_adoption_stands_and_later_rulings_still_settle_bonds() public {
        address other = address(0xA9);
        bankroll(other);
        registerAs(other, keccak256("older"), 0);
        skip(1);
        registerAs(deriver, keccak256("late"), 0);
        skip(1);
        bytes32 first = contestAs(MAKER, keccak256("late"), PARENT);
        bytes32 second = contestAs(other, keccak256("late"), keccak256("older"));
        vm.prank(deriver);
        lineage.answer(second);
        rule(second, 3, GUILTY);
        skip(2 days);
        lineage.uphold(first);
        vm.expectEmit(true, true, true, true, address(lineage));
        emit ILineageCourt.Moot(second, keccak256("late"), keccak256("older"));
        lineage.execute(second);
        vm.assertEq(parentOf(keccak256("late")), PARENT, "the first");
        eq(coin.balanceOf(MAKER), BANKROLL, "bond back");
        eq(coin.balanceOf(deriver), BANKROLL - bond(), "lost all the same");
        _isEmpty();
    }

    function test_a_flood_of_false_contests_pays_its_victim() public {
        uint256 floods = 6;
        for (uint256 i = 0; i < floods; ++i) {
            registerAs(MAKER, bytes32(i + 1), 0);
        }
        skip(1);
        registerAs(deriver, keccak256("victim"), 0);
        skip(1);
        for (uint256 i = 0; i < floods; ++i) {
            bytes32 id = contestAs(MAKER, keccak256("victim"), bytes32(i + 1));
            vm.prank(deriver);
            lineage.answer(id);
            rule(id, 3, HONEST);
            pastAppeal(id);
            lineage.execute(id);
        }
        eq(coin.balanceOf(MAKER), BANKROLL - floods * bond(), "every bond lost");
        vm.assertTrue(coin.balanceOf(deriver) >= BANKROLL + floods * bond() / 2, "half of each to the victim");
        _isEmpty();
    }

    // ---- parameters, deployment

    function test_a_contest_keeps_its_parameters() public {
        bytes32 id = contested();
        IParameters.CourtParams memory p = courtParams();
        p.bond *= 3;
        p.answerWindow *= 2;
        parameters.setCourt(p);
        vm.prank(deriver);
        lineage.answer(id);
        eq(BANKROLL - coin.balanceOf(deriver), bond(), "the bond of its opening");
        rule(id, 3, HONEST);
        pastAppeal(id);
        lineage.execute(id);
        _isEmpty();
    }

    function test_the_court_refuses_a_registry_that_names_another() public {
        AgentRegistry other = new AgentRegistry(AUCTIONS, address(0xBAD));
        vm.expectRevert(ICommittee.BadParams.selector);
        new LineageCourt(coin, staking, other, parameters);
    }
}
