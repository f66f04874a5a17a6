// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice What a vote costs whom: an outvoted juror loses its deposit to those who were right, a minority may bring a larger
/// committee, and every wei is somewhere, over every pattern of votes.
contract SuretiesTest is CourtKit {
    uint256 private constant DEPOSIT = COIN;

    function setUp() public {
        deployAll();
        enrol(16);
    }

    // ---- lodging

    function test_a_vote_without_a_surety_is_refused() public {
        bytes32 id = openDispute(receipt());
        address juror = drawn(id)[0];
        vm.prank(staking.ownerOf(juror));
        court.takeBack(juror, LODGED - COIN + 1);
        bytes32 sealed_ = court.voteCommitment(id, 1, juror, GUILTY, EVIDENCE, SALT);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSurety.selector, juror, DEPOSIT));
        vm.prank(juror);
        court.commit(id, sealed_);
        court.lodge(juror, 1);
        vm.prank(juror);
        court.commit(id, sealed_);
        eq(court.suretyOf(juror), 0, "set aside");
    }

    function test_only_the_owner_takes_back_and_only_what_no_vote_has_set_aside() public {
        bytes32 id = openDispute(receipt());
        address juror = drawn(id)[0];
        address owner = staking.ownerOf(juror);
        vote(id, juror, GUILTY);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NotYours.selector, juror));
        vm.prank(juror);
        court.takeBack(juror, 1);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NoSurety.selector, juror, LODGED));
        vm.prank(owner);
        court.takeBack(juror, LODGED);
        vm.prank(owner);
        court.takeBack(juror, LODGED - COIN);
        eq(coin.balanceOf(owner), LODGED - DEPOSIT, "taken back");
        address nobody = address(0xF00);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NotYours.selector, nobody));
        court.lodge(nobody, COIN);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.NotYours.selector, nobody));
        vm.prank(nobody);
        court.takeBack(nobody, 0);
    }

    function test_a_vote_copied_from_another_costs_its_deposit() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        bytes32 sealed_ = court.voteCommitment(id, 1, jurors[0], GUILTY, EVIDENCE, SALT);
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(jurors[i]);
            court.commit(id, sealed_);
        }
        vote(id, jurors[2], GUILTY);
        unseal(id, jurors[0], GUILTY);
        unseal(id, jurors[2], GUILTY);
        _end(id);
        eq(court.suretyOf(jurors[1]), LODGED - DEPOSIT, "who cannot open loses all of it");
        eq(court.suretyOf(jurors[0]), LODGED, "whose vote it was does not");
    }

    // ---- outvoted

    function test_an_outvoted_juror_loses_its_deposit_to_the_right_ones() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x26); // guilty, honest, guilty
        _end(id);
        uint256 pot = HOST_STAKE / 2 * 2_000 / 10_000 + DEPOSIT;
        eq(coin.balanceOf(staking.ownerOf(jurors[0])), pot / 2, "half of the reward and of the deposit");
        eq(court.suretyOf(jurors[0]), LODGED, "its own is free again");
        eq(court.suretyOf(jurors[1]), LODGED - DEPOSIT, "lost");
        eq(coin.balanceOf(staking.ownerOf(jurors[1])), 0, "nor paid");
        eq(unsettled(), 0, "nothing stays");
    }

    function test_silence_after_the_seal_costs_no_less_than_a_wrong_vote() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x3A); // two guilty, one sealed and never opened
        _end(id);
        eq(court.suretyOf(jurors[2]), LODGED - DEPOSIT, "lost");
    }

    function test_who_never_votes_loses_nothing() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x0A);
        _end(id);
        eq(court.suretyOf(jurors[2]), LODGED, "an abstention is free");
    }

    function test_a_void_round_gives_back_all_but_half_of_what_was_never_opened() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x36); // guilty, honest, never opened
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Void, "void");
        eq(court.suretyOf(jurors[0]), LODGED, "back");
        eq(court.suretyOf(jurors[1]), LODGED, "back");
        eq(court.suretyOf(jurors[2]), LODGED - DEPOSIT / 2, "half");
        eq(coin.balanceOf(staking.ownerOf(jurors[0])), DEPOSIT / 4, "shared by those who opened");
        eq(coin.balanceOf(staking.ownerOf(jurors[1])), DEPOSIT / 4, "shared by those who opened");
        eq(unsettled(), 0, "nothing stays");
    }

    // ---- a minority

    /// @notice Two of three frame a host that sleeps. The third brings seven, who see it as it is.
    function test_one_honest_juror_of_three_undoes_a_frame_up_and_is_paid_for_it() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x29); // honest, guilty, guilty
        _appealAs(id, jurors[0]);
        eq(coin.balanceOf(jurors[0]), 0, "twice the bond");
        address[] memory second = rule(id, 7, HONEST);
        for (uint256 i = 0; i < second.length; ++i) {
            vm.assertTrue(second[i] != jurors[0], "the appellant does not judge");
        }
        uint256 host_ = coin.balanceOf(address(this));
        _end(id);
        uint256 bond = courtParams().bond;
        eq(staking.slashable(host), HOST_STAKE, "not slashed");
        uint256 pot = bond / 2 + 2 * DEPOSIT;
        eq(coin.balanceOf(jurors[0]), 2 * bond + bond / 2 + pot % 8, "its bond back, half of the accuser's");
        eq(coin.balanceOf(staking.ownerOf(jurors[0])), pot / 8 * _seatsOf(jurors[0], second), "and a juror's part");
        eq(coin.balanceOf(address(this)), host_, "who slept gets nothing");
        for (uint256 i = 1; i < 3; ++i) {
            vm.assertTrue(court.suretyOf(jurors[i]) == LODGED - DEPOSIT, "the framers pay");
        }
        eq(unsettled(), 0, "nothing stays");
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 10000
    function test_an_appellant_and_its_kin_never_judge(bytes32 entropy) public {
        vm.assume(entropy != 0);
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        // Five more operators of each juror's owner: somebody of them would be drawn nearly always.
        for (uint256 i = 0; i < 15; ++i) {
            enrolJuror(0x4000 + i, staking.ownerOf(jurors[i % 3]));
        }
        skip(1);
        _vote(id, 0x29);
        _appealAs(id, jurors[0]);
        address[] memory second = drawnWith(id, entropy);
        eq(second.length, 7, "seats");
        for (uint256 i = 0; i < second.length; ++i) {
            vm.assertTrue(
                staking.ownerOf(second[i]) != staking.ownerOf(jurors[0]), "not itself, nor its owner's others"
            );
        }
    }

    function test_a_minority_that_was_wrong_loses_bond_and_deposit() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x29);
        _appealAs(id, jurors[0]);
        rule(id, 7, GUILTY);
        _end(id);
        eq(coin.balanceOf(jurors[0]), 0, "the bond is gone");
        eq(court.suretyOf(jurors[0]), LODGED - DEPOSIT, "and the deposit");
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed");
        eq(unsettled(), 0, "nothing stays");
    }

    function test_a_juror_who_voted_guilty_may_appeal_an_acquittal() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x16); // guilty, honest, honest
        _appealAs(id, jurors[0]);
        rule(id, 7, GUILTY);
        _end(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed");
        vm.assertTrue(coin.balanceOf(jurors[0]) >= 2 * uint256(courtParams().bond), "its bond is back");
    }

    function test_only_jurors_whom_the_ruling_outvoted_may_appeal() public {
        bytes32 id = openDispute(receipt());
        address[] memory jurors = drawn(id);
        _vote(id, 0x0A); // the third says nothing
        for (uint256 i = 0; i < 3; ++i) {
            _refuseAppeal(id, jurors[i]);
        }
        court.appeal(id);
        address[] memory second = drawn(id);
        _vote(id, 0x1555);
        for (uint256 i = 0; i < 2; ++i) {
            // What it said in an earlier round gives it no word here.
            if (_seatsOf(jurors[i], second) == 1) _refuseAppeal(id, jurors[i]);
        }
    }

    function test_an_appeal_that_finds_no_quorum_costs_its_voters_nothing() public {
        bytes32 id = openDispute(receipt());
        rule(id, 3, GUILTY);
        court.appeal(id);
        address[] memory second = drawn(id);
        _vote(id, 0x0015); // three honest of seven
        uint256 before = court.suretyOf(second[0]);
        court.execute(id);
        vm.assertTrue(court.suretyOf(second[0]) >= before + DEPOSIT, "back, though the ruling is another");
        eq(staking.slashable(host), HOST_STAKE / 2, "the ruling stood");
        eq(unsettled(), 0, "nothing stays");
    }

    // ---- every pattern

    /// @notice Each juror's surety after three rounds is what a plain reading of the rule says, and every wei is somewhere.
    /// forge-config: default.fuzz.runs = 64
    /// forge-config: long.fuzz.runs = 10000
    function test_each_deposit_goes_where_the_rule_says(uint256 first, uint256 second, uint256 third) public {
        uint256 supply = coin.totalSupply();
        uint256 before = _everything();
        bytes32 id = openDispute(receipt());
        for (uint256 n = 0; n < 3; ++n) {
            drawn(id);
            _vote(id, n == 0 ? first : n == 1 ? second : third);
            ICommittee.DisputeView memory d = court.disputes(id);
            if (n == 2 || d.phase != ICommittee.Phase.Ruled || d.appealBy <= vm.getBlockTimestamp()) break;
            if (d.verdict == HONEST) vm.prank(challenger);
            court.appeal(id);
        }
        if (court.disputes(id).phase == ICommittee.Phase.Ruled) _end(id);
        for (uint256 i = 0; i < sitters.length; ++i) {
            eq(court.suretyOf(sitters[i]), LODGED - _loss(id, sitters[i]), "what the rule says");
        }
        eq(unsettled(), 0, "nothing stays");
        eq(_everything() + supply - coin.totalSupply(), before, "no coin is made or lost");
    }

    /// @dev What a juror loses in all rounds, read off its votes.
    function _loss(bytes32 id, address juror) private view returns (uint256 loss) {
        ICommittee.DisputeView memory d = court.disputes(id);
        for (uint32 n = 1; n <= d.round; ++n) {
            ICommittee.Vote memory v = court.votes(id, n, juror);
            if (v.commitment == 0) continue;
            bool ruled = _ruled(id, n);
            if (v.verdict == 0) loss += ruled ? DEPOSIT : DEPOSIT / 2;
            else if (ruled && v.verdict != d.verdict) loss += DEPOSIT;
        }
    }

    function _ruled(bytes32 id, uint32 n) private view returns (bool) {
        address[] memory jurors = court.jurorsOf(id, n);
        uint256[3] memory said;
        for (uint256 i = 0; i < jurors.length; ++i) {
            ++said[court.votes(id, n, jurors[i]).verdict];
        }
        return 2 * said[HONEST] > jurors.length || 2 * said[GUILTY] > jurors.length;
    }

    function _everything() private view returns (uint256 sum) {
        sum = coin.balanceOf(address(court)) + coin.balanceOf(address(staking)) + coin.balanceOf(address(settlement));
        sum += coin.balanceOf(address(this)) + coin.balanceOf(challenger);
        for (uint256 i = 0; i < 16; ++i) {
            sum += coin.balanceOf(jurorOwner(i));
        }
    }

    // ---- how it is done

    /// @dev Two bits a seat, as `ballot` reads them.
    function _vote(bytes32 id, uint256 bits) private {
        uint8[] memory votes = new uint8[](court.disputes(id).seats);
        for (uint256 i = 0; i < votes.length; ++i) {
            votes[i] = uint8((bits >> (2 * i)) & 3);
        }
        ballot(id, votes);
    }

    function _end(bytes32 id) private {
        if (court.disputes(id).phase == ICommittee.Phase.Voting) {
            vm.warp(court.disputes(id).revealBy);
            court.tally(id);
        }
        pastAppeal(id);
        court.execute(id);
    }

    function _appealAs(bytes32 id, address juror) private {
        uint256 bond = uint256(courtParams().bond) << (court.disputes(id).appeals + 1);
        coin.transfer(juror, bond);
        vm.prank(juror);
        coin.approve(address(court), bond);
        vm.prank(juror);
        court.appeal(id);
    }

    function _refuseAppeal(bytes32 id, address who) private {
        vm.expectRevert(abi.encodeWithSelector(ICommittee.MayNotAppeal.selector, who));
        vm.prank(who);
        court.appeal(id);
    }

    function _seatsOf(address juror, address[] memory second) private pure returns (uint256 seats) {
        seats = 1;
        for (uint256 i = 0; i < second.length; ++i) {
            if (second[i] == juror) ++seats;
        }
    }
}
