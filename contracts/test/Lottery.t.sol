// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";

/// @notice Who is drawn, who never is, and that nobody can steer it.
contract LotteryTest is CourtKit {
    uint256 private constant CHALLENGER_KEY = 0xCA;

    function setUp() public {
        challenger = vm.addr(CHALLENGER_KEY);
        deployAll();
    }

    function _armed() private returns (bytes32 id, uint256 drawBlock) {
        id = openDispute(receipt());
        drawBlock = court.disputes(id).drawBlock;
    }

    function _isVoid(bytes32 id) private view returns (bool) {
        return court.disputes(id).phase == ICommittee.Phase.Void;
    }

    /// forge-config: default.fuzz.runs = 24
    /// forge-config: long.fuzz.runs = 10000
    function test_the_parties_and_their_kin_never_judge(bytes32 entropy) public {
        vm.assume(entropy != 0);
        enrol(4);
        // A second operator of the host's owner, two of the challenger's, the consumer's own, and two of its owner's.
        staking.stake(vm.addr(0x501), MIN_STAKE, sign65(0x501, staking.stakeConsentDigest(address(this))));
        enrolJuror(0x502, challenger);
        enrolJuror(0x503, payer);
        enrolJuror(PAYER_KEY, address(0x5050));
        enrolJuror(0x504, address(0x5050));
        enrolJuror(CHALLENGER_KEY, address(0x5051));
        enrolJuror(0x505, address(0x5051));
        skip(1);
        (bytes32 id,) = _armed();
        address[] memory jurors = drawnWith(id, entropy);
        eq(jurors.length, 3, "seats");
        for (uint256 i = 0; i < 3; ++i) {
            uint256 owner = uint160(staking.ownerOf(jurors[i]));
            vm.assertTrue(owner >= 0x3000 && owner < 0x3004, "only the four outsiders");
            for (uint256 j = 0; j < i; ++j) {
                vm.assertTrue(jurors[i] != jurors[j], "one seat each");
            }
        }
    }

    function test_the_payer_behind_a_session_key_and_its_kin_never_judge() public {
        enrol(2);
        enrolJuror(PAYER_KEY, address(0x5050));
        enrolJuror(0x504, address(0x5050));
        openSession(COIN, type(uint40).max);
        skip(1);
        IAuditCourt.Receipt memory r = receipt();
        r.signer = session;
        eq(drawn(openDispute(r)).length, 2, "the two outsiders");
    }

    function test_two_eligible_make_a_committee_and_one_makes_none() public {
        enrol(2);
        (bytes32 id,) = _armed();
        address[] memory jurors = drawnWith(id, keccak256("a"));
        eq(jurors.length, 2, "all there are");
        // Both must agree: one vote is no quorum.
        vote(id, jurors[0], GUILTY);
        vote(id, jurors[1], HONEST);
        unseal(id, jurors[0], GUILTY);
        unseal(id, jurors[1], HONEST);
        court.tally(id);
        vm.assertTrue(_isVoid(id), "one against one");
        vm.prank(jurorOwner(0));
        staking.requestUnstake(vm.addr(jurorKey(0)), 1);
        skip(1);
        (id,) = _armed();
        drawnWith(id, keccak256("b"));
        vm.assertTrue(_isVoid(id), "one juror is no committee");
        eq(coin.balanceOf(challenger), BANKROLL, "bond back");
    }

    function test_no_draw_before_the_block_and_a_lost_hash_arms_anew() public {
        enrol(4);
        (bytes32 id, uint256 drawBlock) = _armed();
        vm.roll(drawBlock);
        vm.expectRevert(abi.encodeWithSelector(ICommittee.TooEarlyBlock.selector, drawBlock + 1));
        court.draw(id);
        vm.roll(drawBlock + 257);
        court.draw(id);
        eq(court.disputes(id).drawBlock, drawBlock + 257 + courtParams().drawDelayBlocks, "a later block");
        eq(drawn(id).length, 3, "drawn then");
    }

    function test_an_operator_that_left_after_the_arming_still_serves() public {
        enrol(3);
        (bytes32 id,) = _armed();
        for (uint256 i = 0; i < 3; ++i) {
            vm.prank(jurorOwner(i));
            staking.requestUnstake(vm.addr(jurorKey(i)), MIN_STAKE);
        }
        rule(id, 3, GUILTY);
        pastAppeal(id);
        court.execute(id);
        vm.assertTrue(coin.balanceOf(jurorOwner(0)) != 0, "and is paid for it");
    }

    function test_who_joins_in_the_second_of_the_arming_is_not_drawn() public {
        enrol(2);
        enrolJuror(0x700, address(0x7000));
        (bytes32 before,) = _armed();
        eq(drawn(before).length, 2, "joined earlier in the same second");
        skip(1);
        IAuditCourt.Receipt memory r = receipt();
        r.job = keccak256("another");
        eq(drawn(openDispute(r)).length, 3, "a second later it is");
    }

    /// forge-config: default.fuzz.runs = 64
    /// forge-config: long.fuzz.runs = 10000
    function test_nothing_after_the_arming_moves_a_seat(bytes32 entropy, uint256 seed, uint8 steps, bool appealed)
        public
    {
        vm.assume(entropy != 0);
        enrol(9);
        (bytes32 id,) = _armed();
        if (appealed) {
            rule(id, 3, GUILTY);
            coin.approve(address(court), type(uint256).max);
            court.appeal(id);
        }
        uint256 fork = vm.snapshotState();
        address[] memory expected = drawnWith(id, entropy);
        vm.revertToState(fork);
        for (uint256 i = 0; i < steps % 16; ++i) {
            _meddle(uint256(keccak256(abi.encode(seed, i))), i);
        }
        address[] memory jurors = drawnWith(id, entropy);
        eq(jurors.length, expected.length, "as many");
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.assertEq(jurors[i], expected[i], "the same");
        }
    }

    /// @dev Anything that could move who is active, who owns whom, or who pays for whom.
    function _meddle(uint256 seed, uint256 fresh) private {
        uint256 i = (seed >> 8) % 9;
        address juror = vm.addr(jurorKey(i));
        (, uint96 stake,,, uint40 jailedUntil,) = staking.operators(juror);
        uint256 kind = seed % 8;
        if (kind == 0) enrolJuror(0x700 + fresh, address(uint160(0x7000 + fresh)));
        if (kind == 1 && stake != 0) {
            vm.prank(jurorOwner(i));
            staking.requestUnstake(juror, seed % 2 == 0 ? 1 : stake);
        }
        if (kind == 2) enrolJuror(jurorKey(i), jurorOwner(i));
        if (kind == 3) {
            vm.prank(address(court));
            staking.jail(juror, uint40(vm.getBlockTimestamp() + (seed >> 16) % 100));
        }
        if (kind == 4 && stake >= MIN_STAKE && jailedUntil <= vm.getBlockTimestamp()) staking.unjail(juror);
        // A side or the consumer finds itself owned by whoever owns a juror.
        if (kind == 5) _bind(CHALLENGER_KEY, i);
        if (kind == 6) _bind(PAYER_KEY, i);
        if (kind == 7) _sponsor(i);
        skip((seed >> 32) % 3);
    }

    function _bind(uint256 key, uint256 i) private {
        address owner = staking.ownerOf(vm.addr(key));
        if (owner == address(0) || owner == jurorOwner(i)) enrolJuror(key, jurorOwner(i));
    }

    function _sponsor(uint256 i) private {
        if (settlement.payerOf(payer) != payer) return;
        bytes memory consent = sign65(PAYER_KEY, settlement.sessionConsentDigest(jurorOwner(i)));
        vm.prank(jurorOwner(i));
        settlement.authorize(payer, COIN, type(uint40).max, consent);
    }

    function test_every_operator_is_drawn_about_equally_often() public {
        enrol(10);
        uint256[10] memory drawnTimes;
        for (uint256 n = 0; n < 200; ++n) {
            IAuditCourt.Receipt memory r = receipt();
            r.job = bytes32(n);
            address[] memory jurors = drawnWith(openDispute(r), keccak256(abi.encode("entropy", n)));
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
