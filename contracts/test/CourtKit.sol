// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {Kit} from "./Kit.sol";

/// @notice A host owned by the test contract, jurors with an owner each, a challenger with a bankroll.
abstract contract CourtKit is Kit {
    uint8 internal constant HONEST = 1;
    uint8 internal constant GUILTY = 2;
    bytes32 internal constant EVIDENCE = keccak256("report");
    bytes32 internal constant SALT = keccak256("salt");
    uint96 internal constant HOST_STAKE = 1_000 * COIN;
    uint256 internal constant BANKROLL = 10_000 * uint256(COIN);
    address internal challenger = address(0xCA11);

    function jurorKey(uint256 i) internal pure returns (uint256) {
        return 0x2000 + i;
    }

    function jurorOwner(uint256 i) internal pure returns (address) {
        return address(uint160(0x3000 + i));
    }

    /// @dev The host and `n` jurors stake; the challenger and this contract can pay bonds.
    function enrol(uint256 n) internal {
        staking.stake(host, HOST_STAKE, sign65(HOST_KEY, staking.stakeConsentDigest(address(this))));
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

    function drawn(bytes32 id) internal returns (address[] memory) {
        uint256 drawBlock = court.disputes(id).drawBlock;
        vm.roll(drawBlock + 1);
        vm.setBlockhash(drawBlock, keccak256(abi.encode(id, drawBlock)));
        court.draw(id);
        return court.jurorsOf(id, court.disputes(id).round);
    }

    function vote(bytes32 id, address juror, uint8 verdict) internal {
        bytes32 sealed_ = court.voteCommitment(id, court.disputes(id).round, juror, verdict, EVIDENCE, SALT);
        vm.prank(juror);
        court.commit(id, sealed_);
    }

    function unseal(bytes32 id, address juror, uint8 verdict) internal {
        vm.prank(juror);
        court.reveal(id, verdict, EVIDENCE, SALT);
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
        court.tally(id);
    }
}
