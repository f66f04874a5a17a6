// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {Kit} from "./Kit.sol";

/// @notice A host owned by the test contract, jurors with an owner each, a challenger with a bankroll.
abstract contract CourtKit is Kit {
    uint8 internal constant HONEST = 1;
    uint8 internal constant GUILTY = 2;
    bytes32 internal constant EVIDENCE = keccak256("report");
    bytes32 internal constant SALT = keccak256("salt");
    uint96 internal constant HOST_STAKE = 1_000 * COIN;
    uint256 internal constant BANKROLL = 10_000 * uint256(COIN);
    uint96 internal constant LODGED = 100 * COIN;
    address internal challenger = address(0xCA11);
    /// @dev All who have lodged a surety.
    address[] internal sitters;

    function jurorKey(uint256 i) internal pure returns (uint256) {
        return 0x2000 + i;
    }

    function jurorOwner(uint256 i) internal pure returns (address) {
        return address(uint160(0x3000 + i));
    }

    /// @dev The host and `n` jurors stake; the challenger and this contract can pay bonds.
    function enrol(uint256 n) internal {
        staking.stake(host, HOST_STAKE, sign65(HOST_KEY, staking.stakeConsentDigest(address(this))));
        lodgeFor(host);
        for (uint256 i = 0; i < n; ++i) {
            enrolJuror(jurorKey(i), jurorOwner(i));
        }
        coin.transfer(challenger, BANKROLL);
        vm.prank(challenger);
        coin.approve(address(court), type(uint256).max);
        coin.approve(address(court), type(uint256).max);
        skip(1);
    }

    function enrolJuror(uint256 key, address owner) internal {
        coin.transfer(owner, MIN_STAKE);
        bytes memory consent = sign65(key, staking.stakeConsentDigest(owner));
        vm.prank(owner);
        coin.approve(address(staking), MIN_STAKE);
        vm.prank(owner);
        staking.stake(vm.addr(key), MIN_STAKE, consent);
        lodgeFor(vm.addr(key));
    }

    function lodgeFor(address juror) internal {
        _lodge(court, juror);
        if (address(sitting()) != address(court)) _lodge(sitting(), juror);
    }

    function _lodge(ICommittee on, address juror) private {
        if (on.suretyOf(juror) != 0) return;
        if (address(on) == address(sitting())) sitters.push(juror);
        coin.approve(address(on), type(uint256).max);
        on.lodge(juror, LODGED);
    }

    /// @dev What the court holds beside its jurors' sureties.
    function unsettled() internal view returns (uint256) {
        return coin.balanceOf(address(sitting())) - sureties();
    }

    /// @dev What the votes of a dispute have set aside since the round `first`.
    function setAside(bytes32 id, uint32 first) internal view returns (uint256 sum) {
        uint32 last = sitting().disputes(id).round;
        for (uint32 n = first; n <= last; ++n) {
            for (uint256 i = 0; i < sitters.length; ++i) {
                if (sitting().votes(id, n, sitters[i]).commitment != 0) sum += sitting().paramsOf(id).voteDeposit;
            }
        }
    }

    function sureties() internal view returns (uint256 sum) {
        for (uint256 i = 0; i < sitters.length; ++i) {
            sum += sitting().suretyOf(sitters[i]);
        }
    }

    function receipt() internal view returns (IAuditCourt.Receipt memory r) {
        r.job = keccak256("job");
        r.attempt = 1;
        r.agent = AGENT;
        r.terms = terms;
        r.host = host;
        r.signer = payer;
        r.outputTokens = 100;
        r.amount = 2 * COIN;
        r.finish = 1;
        r.issuedAt = uint64(vm.getBlockTimestamp());
    }

    function openDispute(IAuditCourt.Receipt memory r) internal returns (bytes32) {
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(r));
        vm.prank(challenger);
        return court.open(r, signature);
    }

    /// @dev The court whose disputes the rest is about.
    function sitting() internal view virtual returns (ICommittee) {
        return court;
    }

    function drawn(bytes32 id) internal returns (address[] memory) {
        uint256 drawBlock = sitting().disputes(id).drawBlock;
        return drawnWith(id, keccak256(abi.encode(id, drawBlock)));
    }

    function drawnWith(bytes32 id, bytes32 entropy) internal returns (address[] memory) {
        uint256 drawBlock = sitting().disputes(id).drawBlock;
        vm.roll(drawBlock + 1);
        vm.setBlockhash(drawBlock, entropy);
        sitting().draw(id);
        return sitting().jurorsOf(id, sitting().disputes(id).round);
    }

    function vote(bytes32 id, address juror, uint8 verdict) internal {
        bytes32 sealed_ = sitting().voteCommitment(id, sitting().disputes(id).round, juror, verdict, EVIDENCE, SALT);
        vm.prank(juror);
        sitting().commit(id, sealed_);
    }

    function unseal(bytes32 id, address juror, uint8 verdict) internal {
        vm.prank(juror);
        sitting().reveal(id, verdict, EVIDENCE, SALT);
    }

    /// @dev A whole round in which everybody votes the same, without waiting for any window.
    function rule(bytes32 id, uint256 seats, uint8 verdict) internal returns (address[] memory jurors) {
        jurors = drawn(id);
        vm.assertLe(seats, jurors.length, "seats");
        for (uint256 i = 0; i < jurors.length; ++i) {
            vote(id, jurors[i], verdict);
        }
        for (uint256 i = 0; i < jurors.length; ++i) {
            unseal(id, jurors[i], verdict);
        }
        sitting().tally(id);
    }

    /// @dev A whole round of one vote a juror: 0 says nothing, 1 honest, 2 guilty, 3 guilty but never revealed.
    function ballot(bytes32 id, uint8[] memory votes) internal {
        ICommittee on = sitting();
        address[] memory jurors = on.jurorsOf(id, on.disputes(id).round);
        for (uint256 i = 0; i < jurors.length; ++i) {
            if (votes[i] != 0) vote(id, jurors[i], votes[i] == HONEST ? HONEST : GUILTY);
        }
        ICommittee.DisputeView memory d = on.disputes(id);
        if (d.committed < d.seats) vm.warp(d.commitBy);
        for (uint256 i = 0; i < jurors.length; ++i) {
            if (votes[i] == HONEST || votes[i] == GUILTY) unseal(id, jurors[i], votes[i]);
        }
        d = on.disputes(id);
        if (d.revealed < d.committed) vm.warp(d.revealBy);
        on.tally(id);
    }

    function pastAppeal(bytes32 id) internal {
        uint256 appealBy = sitting().disputes(id).appealBy;
        if (vm.getBlockTimestamp() < appealBy) vm.warp(appealBy);
    }
}
