// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {LineageKit} from "./LineageKit.sol";

/// @notice What each verb of stakes and courts costs as a transaction of its own, and a verdict by three from opening to slash.
/// @dev Isolation makes forge run every call as a transaction, so that slots are cold and refunds are real.
/// forge-config: default.isolate = true
contract GasCourtTest is LineageKit {
    event log_named_uint(string name, uint256 value);

    function setUp() public {
        deployLineage(8);
        // Nobody's first coin: every payee has some.
        for (uint256 i = 0; i < 8; ++i) {
            coin.transfer(jurorOwner(i), 1);
        }
    }

    function _spent() private view returns (uint256) {
        return vm.lastCallGas().gasTotalUsed;
    }

    function _report(string memory name, uint256 spent, uint256 bar) private {
        emit log_named_uint(name, spent);
        vm.assertLe(spent, bar, name);
    }

    /// @dev Draws, votes and counts; returns what each of them cost.
    function _verdict(bytes32 id, uint8 verdict) private returns (uint256 draw, uint256 votes, uint256 tally) {
        uint256 drawBlock = court.disputes(id).drawBlock;
        vm.roll(drawBlock + 1);
        vm.setBlockhash(drawBlock, keccak256(abi.encode(id)));
        court.draw(id);
        draw = _spent();
        address[] memory jurors = court.jurorsOf(id, 1);
        for (uint256 i = 0; i < jurors.length; ++i) {
            bytes32 sealed_ = court.voteCommitment(id, 1, jurors[i], verdict, EVIDENCE, SALT);
            vm.prank(jurors[i]);
            court.commit(id, sealed_);
            votes += _spent();
        }
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.prank(jurors[i]);
            court.reveal(id, verdict, EVIDENCE, SALT);
            votes += _spent();
        }
        court.tally(id);
        tally = _spent();
    }

    function test_gas_verdict_by_three() public {
        IAuditCourt.Receipt memory r = receipt();
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(r));
        vm.prank(challenger);
        bytes32 id = court.open(r, signature);
        uint256 open = _spent();
        (uint256 draw, uint256 votes, uint256 tally) = _verdict(id, GUILTY);
        vm.warp(court.disputes(id).appealBy);
        court.execute(id);
        uint256 execute = _spent();
        _report("gas_dispute_open", open, 315_000);
        _report("gas_dispute_draw_3", draw, 285_000);
        _report("gas_dispute_commit_and_reveal", votes / 3, 130_000);
        _report("gas_dispute_tally", tally, 60_000);
        _report("gas_dispute_execute_guilty", execute, 370_000);
        _report("gas_verdict_by_three", open + draw + votes + tally + execute, 1_400_000);
    }

    function test_gas_anchor_and_open_of_1024() public {
        IAuditCourt.Receipt memory r = receipt();
        bytes memory signature = new bytes(65);
        bytes32[] memory path = new bytes32[](10);
        bytes32 root = sha256(bytes.concat(abi.encode(r), signature));
        for (uint256 i = 0; i < path.length; ++i) {
            path[i] = keccak256(abi.encode(i));
            root = sha256(abi.encodePacked(bytes1(0x01), root, path[i]));
        }
        vm.prank(host);
        court.anchor(root, 1_024);
        _report("gas_anchor_first", _spent(), 75_000);
        vm.prank(challenger);
        court.openAnchored(r, signature, root, 0, path);
        _report("gas_dispute_open_anchored_1024", _spent(), 335_000);
    }

    function test_gas_open_of_a_sheaf() public {
        IAuditCourt.Receipt memory r = receipt();
        bytes memory path;
        bytes32 root = court.receiptDigest(r);
        for (uint256 i = 0; i < 10; ++i) {
            bytes32 beside = keccak256(abi.encode(i));
            path = bytes.concat(path, beside);
            root = sha256(abi.encodePacked(bytes1(0x01), root, beside));
            if (i == 5 || i == 9) {
                uint32 count = uint32(2 << i);
                bytes memory signed = sign65(HOST_KEY, court.sheafDigest(root, count));
                bytes memory signature = bytes.concat(signed, bytes2(0), bytes2(uint16(count)), path);
                uint256 fork = vm.snapshotState();
                vm.prank(challenger);
                court.open(r, signature);
                _report(i == 5 ? "gas_dispute_open_sheaf_64" : "gas_dispute_open_sheaf_1024", _spent(), 335_000);
                vm.revertToState(fork);
            }
        }
    }

    function test_gas_contest_of_lineage() public {
        bytes32 id = contested();
        _report("gas_contest", _spent(), 290_000);
        vm.prank(deriver);
        lineage.answer(id);
        _report("gas_contest_answer", _spent(), 200_000);
    }

    function test_gas_stake() public {
        address owner = address(0x5050);
        coin.transfer(owner, 2 * MIN_STAKE);
        vm.prank(owner);
        coin.approve(address(staking), 2 * MIN_STAKE);
        bytes memory consent = sign65(0x777, staking.stakeConsentDigest(owner));
        address operator = vm.addr(0x777);
        vm.prank(owner);
        staking.stake(operator, MIN_STAKE, consent);
        _report("gas_stake_first", _spent(), 260_000);
        vm.prank(owner);
        staking.stake(operator, MIN_STAKE, consent);
        _report("gas_stake_more", _spent(), 75_000);
        vm.prank(owner);
        staking.requestUnstake(operator, 2 * MIN_STAKE);
        _report("gas_unstake_request", _spent(), 130_000);
        skip(COOLDOWN);
        staking.finishUnstake(operator);
        _report("gas_unstake_finish", _spent(), 66_000);
    }
}
