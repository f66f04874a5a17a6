// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice An honest host whose numbers differ is never slashed for it: jurors that cannot tell abstain, and only a majority of
/// all seats that says guilty aloud convicts. Over every pattern of votes, in every round.
contract SilenceTest is CourtKit {
    uint256 private constant SEATS_OF_TWO_APPEALS = 15;

    function setUp() public {
        deployAll();
        enrol(16);
    }

    /// @dev Two bits a seat, as `ballot` reads them: silent, honest, guilty, guilty but not revealed.
    function _pattern(uint256 bits, uint256 seats)
        private
        pure
        returns (uint8[] memory votes, uint256 guilty, uint256 honest)
    {
        votes = new uint8[](seats);
        for (uint256 i = 0; i < seats; ++i) {
            votes[i] = uint8((bits >> (2 * i)) & 3);
            if (votes[i] == GUILTY) ++guilty;
            if (votes[i] == HONEST) ++honest;
        }
    }

    /// @dev Holds a round and checks it against the plain rule; returns the verdict, 0 for none.
    function _round(bytes32 id, uint256 bits, uint256 seats) private returns (uint8 verdict) {
        eq(drawn(id).length, seats, "seats");
        (uint8[] memory votes, uint256 guilty, uint256 honest) = _pattern(bits, seats);
        uint8 before = court.disputes(id).verdict;
        ballot(id, votes);
        verdict = 2 * guilty > seats ? GUILTY : 2 * honest > seats ? HONEST : 0;
        eq(court.disputes(id).verdict, verdict == 0 ? before : verdict, "a majority of all seats");
    }

    function _finish(bytes32 id, uint8 standing) private {
        ICommittee.DisputeView memory d = court.disputes(id);
        if (standing == 0) {
            vm.assertTrue(d.phase == ICommittee.Phase.Void, "void");
            uint256 silent = uint256(d.committed - d.revealed) * courtParams().voteDeposit / 2;
            uint256 rest = d.revealed == 0 ? silent : silent % d.revealed;
            eq(coin.balanceOf(challenger), BANKROLL + rest, "bond back");
        } else {
            pastAppeal(id);
            court.execute(id);
        }
        eq(
            staking.slashable(host),
            standing == GUILTY ? HOST_STAKE / 2 : HOST_STAKE,
            "slashed if and only if convicted"
        );
        eq(unsettled(), 0, "nothing stays");
        (,,,, uint40 jailedUntil, uint24 open_) = staking.operators(host);
        vm.assertTrue((jailedUntil != 0) == (standing == GUILTY) && open_ == 0, "jailed likewise, no dispute left");
    }

    /// @notice All 64 patterns of the three seats of a first round.
    function test_every_pattern_of_three() public {
        uint256 fork = vm.snapshotState();
        uint256 convictions = 0;
        for (uint256 bits = 0; bits < 64; ++bits) {
            bytes32 id = openDispute(receipt());
            uint8 verdict = _round(id, bits, 3);
            _finish(id, verdict);
            if (verdict == GUILTY) ++convictions;
            vm.revertToState(fork);
            fork = vm.snapshotState();
        }
        // Two guilty of three: three places for the other, three ways for it to vote otherwise; and all three.
        eq(convictions, 3 * 3 + 1, "no other pattern convicts");
    }

    /// forge-config: default.fuzz.runs = 128
    /// forge-config: long.fuzz.runs = 10000
    function test_seven_that_split_leave_the_ruling_before(uint256 first, uint256 second) public {
        bytes32 id = openDispute(receipt());
        uint8 standing = _round(id, (first & 0x30) | 0x0A, 3);
        vm.assertTrue(standing == GUILTY, "two say so at least");
        court.appeal(id);
        uint8 verdict = _round(id, second, 7);
        _finish(id, verdict == 0 ? standing : verdict);
    }

    /// forge-config: default.fuzz.runs = 128
    /// forge-config: long.fuzz.runs = 10000
    function test_fifteen_that_split_leave_the_ruling_before(uint256 bits, bool acquitted) public {
        bytes32 id = openDispute(receipt());
        _round(id, 0x2A, 3);
        court.appeal(id);
        // The second round decides who appeals to the third.
        uint8 standing = _round(id, acquitted ? 0x1555 : 0x2AAA, 7);
        if (acquitted) vm.prank(challenger);
        court.appeal(id);
        uint8 verdict = _round(id, bits, SEATS_OF_TWO_APPEALS);
        _finish(id, verdict == 0 ? standing : verdict);
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: long.fuzz.runs = 10000
    function test_without_guilty_votes_nothing_is_ever_slashed(uint256 first, uint256 second, uint256 third) public {
        bytes32 id = openDispute(receipt());
        uint8 standing = _round(id, _peaceful(first), 3);
        if (standing == HONEST) {
            vm.prank(challenger);
            court.appeal(id);
            _round(id, _peaceful(second), 7);
            if (court.disputes(id).appealBy > vm.getBlockTimestamp()) {
                vm.prank(challenger);
                court.appeal(id);
                _round(id, _peaceful(third), SEATS_OF_TWO_APPEALS);
            }
        }
        _finish(id, standing);
    }

    /// @dev Clears the upper bit of each vote unless the lower is set too: silent, honest, or sealed and never shown.
    function _peaceful(uint256 bits) private pure returns (uint256) {
        uint256 low = type(uint256).max / 3;
        return (bits & low) | (bits & (bits << 1) & (low << 1));
    }
}
