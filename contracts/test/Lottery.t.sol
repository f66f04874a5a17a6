// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice Who is drawn, who never is, and that nobody can steer it.
contract LotteryTest is CourtKit {
    function setUp() public {
        deployAll();
    }

    function _armed() private returns (bytes32 id, uint256 drawBlock) {
        id = openDispute(receipt());
        drawBlock = court.disputes(id).drawBlock;
    }

    function _drawWith(bytes32 id, uint256 drawBlock, bytes32 entropy) private returns (address[] memory) {
        vm.roll(drawBlock + 1);
        vm.setBlockhash(drawBlock, entropy);
        court.draw(id);
        return court.jurorsOf(id, court.disputes(id).round);
    }

    function _isVoid(bytes32 id) private view returns (bool) {
        return court.disputes(id).phase == IAuditCourt.Phase.Void;
    }

    /// forge-config: default.fuzz.runs = 24
    function test_the_parties_and_their_kin_never_judge(bytes32 entropy) public {
        vm.assume(entropy != 0);
        enrol(4);
        // A second operator of the host's owner, two of the challenger's, and the consumer's own.
        staking.stake(vm.addr(0x501), MIN_STAKE, sign65(0x501, staking.stakeConsentDigest(address(this))));
        enrolJuror(0x502, challenger);
        enrolJuror(0x503, payer);
        enrolJuror(PAYER_KEY, address(0x5050));
        skip(1);
        (bytes32 id, uint256 drawBlock) = _armed();
        address[] memory jurors = _drawWith(id, drawBlock, entropy);
        eq(jurors.length, 3, "seats");
        for (uint256 i = 0; i < 3; ++i) {
            uint256 owner = uint160(staking.ownerOf(jurors[i]));
            vm.assertTrue(owner >= 0x3000 && owner < 0x3004, "only the four outsiders");
            for (uint256 j = 0; j < i; ++j) {
                vm.assertTrue(jurors[i] != jurors[j], "one seat each");
            }
        }
    }

    function test_two_eligible_make_a_committee_and_one_makes_none() public {
        enrol(2);
        (bytes32 id, uint256 drawBlock) = _armed();
        eq(_drawWith(id, drawBlock, keccak256("a")).length, 2, "all there are");
        // Both must agree: one vote is no quorum.
        address[] memory jurors = court.jurorsOf(id, 1);
        vote(id, jurors[0], GUILTY);
        vote(id, jurors[1], HONEST);
        unseal(id, jurors[0], GUILTY);
        unseal(id, jurors[1], HONEST);
        court.tally(id);
        vm.assertTrue(_isVoid(id), "one against one");
        vm.prank(jurorOwner(0));
        staking.requestUnstake(vm.addr(jurorKey(0)), 1);
        (id, drawBlock) = _armed();
        _drawWith(id, drawBlock, keccak256("b"));
        vm.assertTrue(_isVoid(id), "one juror is no committee");
        eq(coin.balanceOf(challenger), BANKROLL, "bond back");
    }

    function test_no_draw_before_the_block_and_a_lost_hash_arms_anew() public {
        enrol(4);
        (bytes32 id, uint256 drawBlock) = _armed();
        vm.roll(drawBlock);
        vm.expectRevert(abi.encodeWithSelector(IAuditCourt.TooEarlyBlock.selector, drawBlock + 1));
        court.draw(id);
        vm.roll(drawBlock + 257);
        court.draw(id);
        eq(court.disputes(id).drawBlock, drawBlock + 257 + courtParams().drawDelayBlocks, "a later block");
        eq(drawn(id).length, 3, "drawn then");
    }

    /// forge-config: default.fuzz.runs = 24
    function test_newcomers_after_the_arming_are_never_drawn(bytes32 entropy) public {
        vm.assume(entropy != 0);
        enrol(3);
        (bytes32 id, uint256 drawBlock) = _armed();
        skip(1);
        for (uint256 i = 0; i < 20; ++i) {
            enrolJuror(0x700 + i, address(uint160(0x7000 + i)));
        }
        // One of the old ones leaves, so that a newcomer slips into the old range of the list.
        vm.prank(jurorOwner(0));
        staking.requestUnstake(vm.addr(jurorKey(0)), 1);
        address[] memory jurors = _drawWith(id, drawBlock, entropy);
        eq(jurors.length, 2, "the two old ones that are left");
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.assertTrue(uint160(staking.ownerOf(jurors[i])) < 0x4000, "an old one");
        }
    }

    function test_every_operator_is_drawn_about_equally_often() public {
        enrol(10);
        uint256[10] memory drawnTimes;
        for (uint256 n = 0; n < 200; ++n) {
            IAuditCourt.Receipt memory r = receipt();
            r.job = bytes32(n);
            bytes32 id = openDispute(r);
            uint256 drawBlock = court.disputes(id).drawBlock;
            address[] memory jurors = _drawWith(id, drawBlock, keccak256(abi.encode("entropy", n)));
            for (uint256 i = 0; i < 3; ++i) {
                drawnTimes[uint160(staking.ownerOf(jurors[i])) - 0x3000] += 1;
            }
        }
        // 60 expected, standard deviation 6.5: five of them either way.
        for (uint256 i = 0; i < 10; ++i) {
            vm.assertTrue(drawnTimes[i] > 27 && drawnTimes[i] < 93, "near the mean");
        }
    }
}
