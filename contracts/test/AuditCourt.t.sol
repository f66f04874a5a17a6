// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AICoin} from "../src/AICoin.sol";
import {AuditCourt} from "../src/AuditCourt.sol";
import {Staking} from "../src/Staking.sol";
import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice Disputes from opening to execution, and every way in which one must not get there.
contract AuditCourtTest is CourtKit {
    function setUp() public {
        deployAll();
        enrol(8);
    }

    // ---- opening

    function test_only_a_receipt_signed_by_the_host_for_this_court_opens() public {
        IAuditCourt.Receipt memory r = receipt();
        bytes memory forged = sign65(0xBAD, court.receiptDigest(r));
        _refuseOpen(IAuditCourt.BadReceipt.selector, r, forged);
        bytes memory good = sign65(HOST_KEY, court.receiptDigest(r));
        r.amount += 1;
        _refuseOpen(IAuditCourt.BadReceipt.selector, r, good);
        r.amount -= 1;
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes memory elsewhere = sign65(HOST_KEY, court.receiptDigest(r));
        vm.chainId(here);
        _refuseOpen(IAuditCourt.BadReceipt.selector, r, elsewhere);
    }

    function test_one_dispute_per_attempt_and_challenger() public {
        bytes32 id = openDispute(receipt());
        vm.assertEq(id, keccak256(abi.encode(host, receipt().job, receipt().attempt, challenger)), "id");
        IAuditCourt.Receipt memory other = receipt();
        other.commitment = keccak256("another chunk of the same attempt");
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(other));
        _refuseOpen(IAuditCourt.AlreadyOpened.selector, other, signature);
        rule(id, 3, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        _refuseOpen(IAuditCourt.AlreadyOpened.selector, other, signature);
    }

    function test_a_friend_of_the_host_who_is_first_blocks_nobody() public {
        address friend = vm.addr(0xF12E);
        uint256 bond = courtParams().bond;
        coin.transfer(friend, bond);
        IAuditCourt.Receipt memory harmless = receipt();
        harmless.commitment = keccak256("honest work, signed for this");
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(harmless));
        vm.prank(friend);
        coin.approve(address(court), bond);
        vm.prank(friend);
        bytes32 shield = court.open(harmless, signature);
        bytes32 id = openDispute(receipt());
        rule(shield, 3, HONEST);
        skip(courtParams().appealWindow);
        court.execute(shield);
        eq(staking.slashable(host), HOST_STAKE, "the friend's case is lost");
        rule(id, 3, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "and saved nothing");
    }

    function test_two_who_prove_the_same_attempt_slash_once() public {
        address second = vm.addr(0x5EC0);
        uint256 bond = courtParams().bond;
        coin.transfer(second, bond);
        IAuditCourt.Receipt memory same = receipt();
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(same));
        bytes32 id = openDispute(same);
        vm.prank(second);
        coin.approve(address(court), bond);
        vm.prank(second);
        bytes32 other = court.open(same, signature);
        rule(id, 3, GUILTY);
        rule(other, 3, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        court.execute(other);
        eq(staking.slashable(host), HOST_STAKE / 2, "once");
        eq(coin.balanceOf(second), bond, "whoever was right has its bond back");
        eq(unsettled(), 0, "nothing sticks");
        vm.assertTrue(court.disputes(other).phase == ICommittee.Phase.Closed, "closed");
    }

    function test_an_old_receipt_and_a_host_without_stake_are_refused() public {
        IAuditCourt.Receipt memory r = receipt();
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(r));
        skip(courtParams().receiptMaxAge + 1);
        _refuseOpen(IAuditCourt.ReceiptTooOld.selector, r, signature);
        r = receipt();
        r.host = vm.addr(0x999);
        signature = sign65(0x999, court.receiptDigest(r));
        _refuseOpen(IAuditCourt.NothingAtStake.selector, r, signature);
    }

    // ---- guilty

    function test_guilty_slashes_only_after_the_appeal_window_and_pays_everybody_right() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = rule(id, 3, GUILTY);
        vm.expectRevert();
        court.execute(id);
        skip(courtParams().appealWindow - 1);
        vm.expectRevert();
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE, "untouched in the window");
        skip(1);
        uint256 supply = coin.totalSupply();
        uint256 freeBefore = freeOf(payer);
        court.execute(id);
        uint256 slashed = HOST_STAKE / 2;
        eq(staking.slashable(host), HOST_STAKE - slashed, "half");
        eq(freeOf(payer) - freeBefore, receipt().amount, "consumer refunded");
        uint256 reward = slashed * 2_000 / 10_000;
        uint256 fee = slashed / 10;
        eq(supply - coin.totalSupply(), slashed - reward - fee - receipt().amount, "the rest burnt");
        eq(coin.balanceOf(challenger), BANKROLL + fee + reward % 3, "bond back, fee, odd wei");
        for (uint256 i = 0; i < 3; ++i) {
            eq(coin.balanceOf(staking.ownerOf(jurors[i])), reward / 3, "jurors of the majority");
        }
        eq(unsettled(), 0, "the court keeps nothing");
        vm.assertTrue(!staking.isActive(host), "jailed");
        vm.expectRevert();
        court.execute(id);
    }

    function test_a_juror_who_never_reveals_is_not_paid_and_stops_nothing() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        for (uint256 i = 0; i < 3; ++i) {
            vote(id, jurors[i], GUILTY);
        }
        unseal(id, jurors[0], GUILTY);
        unseal(id, jurors[1], GUILTY);
        vm.expectRevert();
        court.tally(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        court.tally(id);
        vm.expectRevert();
        vm.prank(jurors[2]);
        court.reveal(id, GUILTY, EVIDENCE, SALT);
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(coin.balanceOf(staking.ownerOf(jurors[2])), 0, "silent juror");
        vm.assertTrue(coin.balanceOf(staking.ownerOf(jurors[0])) != 0, "paid juror");
    }

    function test_a_dissenting_juror_is_not_paid() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        vote(id, jurors[0], GUILTY);
        vote(id, jurors[1], HONEST);
        vote(id, jurors[2], GUILTY);
        unseal(id, jurors[0], GUILTY);
        unseal(id, jurors[1], HONEST);
        unseal(id, jurors[2], GUILTY);
        court.tally(id);
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(coin.balanceOf(staking.ownerOf(jurors[1])), 0, "dissenter");
    }

    function test_unbonding_stake_is_slashed_too_and_waits() public {
        staking.requestUnstake(host, HOST_STAKE);
        skip(COOLDOWN - 1 hours);
        IAuditCourt.Receipt memory r = receipt();
        bytes32 id = openDispute(r);
        skip(1 hours);
        vm.expectRevert();
        staking.finishUnstake(host);
        rule(id, 3, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed on its way out");
        staking.finishUnstake(host);
    }

    function test_a_receipt_that_names_nobody_as_signer_cannot_stop_the_slash() public {
        IAuditCourt.Receipt memory r = receipt();
        r.signer = address(0);
        bytes32 id = openDispute(r);
        rule(id, 3, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed");
    }

    function test_a_huge_amount_cannot_turn_the_burn_into_a_refund() public {
        IAuditCourt.Receipt memory r = receipt();
        r.amount = type(uint96).max;
        bytes32 id = openDispute(r);
        rule(id, 3, GUILTY);
        skip(courtParams().appealWindow);
        uint256 supply = coin.totalSupply();
        court.execute(id);
        eq(supply - coin.totalSupply(), HOST_STAKE / 2 * 4_000 / 10_000, "burnBps at least");
    }

    // ---- honest, void

    function test_honest_gives_the_bond_to_jurors_and_host() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = rule(id, 3, HONEST);
        skip(courtParams().appealWindow);
        uint256 before = coin.balanceOf(address(this));
        court.execute(id);
        uint256 half = courtParams().bond / 2;
        eq(coin.balanceOf(challenger), BANKROLL - courtParams().bond, "bond lost");
        eq(coin.balanceOf(address(this)) - before, half + half % 3, "half to the host's owner");
        eq(coin.balanceOf(staking.ownerOf(jurors[0])), half / 3, "half to the jurors");
        eq(staking.slashable(host), HOST_STAKE, "not slashed");
        vm.assertTrue(staking.isActive(host), "not jailed");
    }

    function test_no_quorum_is_void_gives_the_bond_back_and_may_be_opened_again() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        vote(id, jurors[0], GUILTY);
        skip(courtParams().commitWindow);
        unseal(id, jurors[0], GUILTY);
        court.tally(id);
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "void");
        eq(coin.balanceOf(challenger), BANKROLL, "bond is back");
        vm.expectRevert();
        court.execute(id);
        (,,,,, uint24 open) = staking.operators(host);
        eq(open, 0, "no dispute holds the stake");
        vm.assertEq(openDispute(receipt()), id, "same id");
        eq(court.disputes(id).round, 2, "a new round: old votes mean nothing");
        rule(id, 3, GUILTY);
    }

    function test_silence_of_everybody_convicts_nobody() public {
        bytes32 id = openDispute(receipt());
        drawn(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        court.tally(id);
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "void");
        eq(staking.slashable(host), HOST_STAKE, "untouched");
    }

    // ---- votes

    function test_a_copied_commitment_cannot_be_revealed() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        bytes32 sealed0 = court.voteCommitment(id, 1, jurors[0], GUILTY, EVIDENCE, SALT);
        vm.prank(jurors[0]);
        court.commit(id, sealed0);
        vm.prank(jurors[1]);
        court.commit(id, sealed0);
        vote(id, jurors[2], GUILTY);
        unseal(id, jurors[0], GUILTY);
        vm.expectRevert(ICommittee.BadReveal.selector);
        vm.prank(jurors[1]);
        court.reveal(id, GUILTY, EVIDENCE, SALT);
    }

    function test_votes_are_sealed_seated_once_and_in_time() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSeat.selector, challenger));
        vm.prank(challenger);
        court.commit(id, keccak256("x"));
        vote(id, jurors[0], GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSeat.selector, jurors[0]));
        vm.prank(jurors[0]);
        court.commit(id, keccak256("changed my mind"));
        // Nobody can show a vote while another may still be cast.
        vm.expectRevert();
        vm.prank(jurors[0]);
        court.reveal(id, GUILTY, EVIDENCE, SALT);
        skip(courtParams().commitWindow);
        vm.expectRevert();
        vm.prank(jurors[1]);
        court.commit(id, keccak256("late"));
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSeat.selector, jurors[1]));
        vm.prank(jurors[1]);
        court.reveal(id, GUILTY, EVIDENCE, SALT);
        unseal(id, jurors[0], GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSeat.selector, jurors[0]));
        vm.prank(jurors[0]);
        court.reveal(id, GUILTY, EVIDENCE, SALT);
    }

    function test_a_verdict_is_one_or_two() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        bytes32 sealed3 = court.voteCommitment(id, 1, jurors[0], 3, EVIDENCE, SALT);
        vm.prank(jurors[0]);
        court.commit(id, sealed3);
        skip(courtParams().commitWindow);
        vm.expectRevert(ICommittee.BadReveal.selector);
        vm.prank(jurors[0]);
        court.reveal(id, 3, EVIDENCE, SALT);
    }

    // ---- appeals

    function test_an_appeal_with_twice_the_bond_draws_a_larger_committee_and_can_reverse() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, challenger));
        vm.prank(challenger);
        court.appeal(id);
        uint256 before = coin.balanceOf(address(this));
        court.appeal(id);
        eq(before - coin.balanceOf(address(this)), 2 * courtParams().bond, "twice the bond");
        vm.expectRevert();
        court.execute(id);
        address[] memory jurors = rule(id, 7, HONEST);
        eq(jurors.length, 7, "2n + 1");
        skip(courtParams().appealWindow);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE, "reversed");
        uint256 half = courtParams().bond / 2;
        uint256 lost = 3 * uint256(courtParams().voteDeposit);
        eq(coin.balanceOf(address(this)), before + half + (half + lost) % 7, "appeal bond back, half the challenger's");
        eq(unsettled(), 0, "nothing stays");
    }

    function test_a_lost_appeal_pays_the_opponent_and_every_juror_who_was_right() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        court.appeal(id);
        rule(id, 7, GUILTY);
        skip(courtParams().appealWindow);
        court.execute(id);
        uint256 fee = HOST_STAKE / 2 / 10;
        uint256 pot = HOST_STAKE / 2 * 2_000 / 10_000 + courtParams().bond;
        eq(coin.balanceOf(challenger), BANKROLL + fee + courtParams().bond + pot % 10, "half of the appeal bond");
        eq(unsettled(), 0, "nothing stays");
    }

    function test_an_appeal_without_a_quorum_leaves_the_ruling_and_returns_its_bond() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        uint256 before = coin.balanceOf(address(this));
        court.appeal(id);
        drawn(id);
        skip(courtParams().commitWindow + courtParams().revealWindow);
        court.tally(id);
        vm.expectRevert();
        court.appeal(id);
        court.execute(id);
        eq(coin.balanceOf(address(this)), before, "appeal bond is back");
        eq(staking.slashable(host), HOST_STAKE / 2, "the ruling stood");
        eq(unsettled(), 0, "nothing stays");
    }

    function test_two_appeals_at_most_and_none_after_the_window() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        court.appeal(id);
        rule(id, 7, GUILTY);
        court.appeal(id);
        rule(id, 7, GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, address(this)));
        court.appeal(id);
        skip(courtParams().appealWindow);
        vm.expectRevert();
        court.appeal(id);
        court.execute(id);
        eq(unsettled(), 0, "nothing stays");
    }

    // ---- deployment

    function test_the_court_refuses_a_staking_that_names_another_court_or_pays_out_too_early() public {
        Staking other = new Staking(coin, address(0xBAD), MIN_STAKE, COOLDOWN);
        vm.expectRevert(ICommittee.BadParams.selector);
        new AuditCourt(coin, other, settlement, parameters);
        uint256 longest = parameters.longestDispute() + parameters.oldestReceipt();
        eq(longest, 3 * 2 * (600 + 300 + 1 days) + 3 days, "three rounds, all windows doubled, then the oldest receipt");
        other = _stakingForNext(coin, longest);
        vm.expectRevert(ICommittee.BadParams.selector);
        new AuditCourt(coin, other, settlement, parameters);
        other = _stakingForNext(coin, longest + 1);
        new AuditCourt(coin, other, settlement, parameters);
    }

    function test_the_court_refuses_contracts_of_another_coin() public {
        AICoin other = new AICoin("Other", "OTHER", 1, address(this));
        Staking elsewhere = _stakingForNext(other, COOLDOWN);
        vm.expectRevert(ICommittee.BadParams.selector);
        new AuditCourt(coin, elsewhere, settlement, parameters);
        elsewhere = _stakingForNext(other, COOLDOWN);
        vm.expectRevert(ICommittee.BadParams.selector);
        new AuditCourt(other, elsewhere, settlement, parameters);
    }

    /// @dev The court is created after it; a creation that reverts takes its nonce back.
    function _stakingForNext(AICoin c, uint256 cooldown) private returns (Staking) {
        address next = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 1);
        return new Staking(c, next, MIN_STAKE, uint40(cooldown));
    }

    function _refuseOpen(bytes4 selector, IAuditCourt.Receipt memory r, bytes memory signature) private {
        vm.prank(challenger);
        (bool ok, bytes memory reason) = address(court).call(abi.encodeCall(court.open, (r, signature)));
        vm.assertTrue(!ok && bytes4(reason) == selector, "open refused for the right reason");
    }
}
