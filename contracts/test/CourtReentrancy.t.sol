// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AICoin} from "../src/AICoin.sol";
import {AgentRegistry} from "../src/AgentRegistry.sol";
import {Settlement} from "../src/Settlement.sol";
import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../src/interfaces/ICommittee.sol";
import {CourtKit} from "./CourtKit.sol";
import {Puppet, TricksterCoin} from "./market/Accomplices.sol";

/// @notice A coin that lets a payee call back while others are still to be paid gets nobody's money twice.
contract CourtReentrancyTest is CourtKit {
    TricksterCoin private trick;
    Puppet private puppet;

    function setUp() public {
        vm.warp(1_800_000_000);
        vm.roll(1_000);
        trick = new TricksterCoin(1e27);
        puppet = new Puppet(address(0x9A));
        challenger = address(puppet);
        coin = AICoin(address(trick));
        registry = new AgentRegistry(AUCTIONS, LINEAGE_COURT);
        settlement = new Settlement(coin, registry, EXIT_DELAY, CLOSE_DELAY);
        deployCourt();
        enrol(8);
    }

    function _open(IAuditCourt.Receipt memory r) private view returns (bytes memory) {
        return abi.encodeCall(court.open, (r, sign65(HOST_KEY, court.receiptDigest(r))));
    }

    /// @notice Its own bond comes back, and from inside that transfer the accuser opens the same dispute anew.
    function test_a_void_dispute_that_is_opened_again_while_it_pays_out_pays_its_new_bond_to_nobody() public {
        IAuditCourt.Receipt memory r = receipt();
        puppet.run(address(court), _open(r));
        bytes32 id = court.disputeId(r.host, r.job, r.attempt, challenger);
        address[] memory jurors = drawn(id);
        vote(id, jurors[0], GUILTY);
        vote(id, jurors[1], GUILTY);
        vm.warp(court.disputes(id).commitBy);
        unseal(id, jurors[0], GUILTY);
        vm.warp(court.disputes(id).revealBy);
        puppet.arm(address(court), _open(r));
        trick.setHook(puppet);
        court.tally(id);
        vm.assertTrue(puppet.landed() != 0, "it did call back");
        trick.setHook(Puppet(address(0)));
        vm.assertTrue(court.disputes(id).phase == ICommittee.Phase.Drawing, "open again");
        eq(court.disputes(id).round, 2, "in a round of its own");
        eq(unsettled(), courtParams().bond, "which has its bond");
        eq(court.suretyOf(jurors[0]), LODGED, "who opened has all back");
        eq(court.suretyOf(jurors[1]), LODGED - courtParams().voteDeposit / 2, "who did not has half");
        rule(id, 3, HONEST);
        pastAppeal(id);
        court.execute(id);
        eq(unsettled(), 0, "nothing stays, nothing is missing");
    }

    /// @notice The owner takes its surety back from inside every payment of a ruling: it gets what is free, once.
    function test_taking_back_from_inside_an_execution_takes_what_is_free() public {
        IAuditCourt.Receipt memory r = receipt();
        puppet.run(address(court), _open(r));
        bytes32 id = court.disputeId(r.host, r.job, r.attempt, challenger);
        enrolJuror(0x777, address(puppet));
        rule(id, 3, GUILTY);
        pastAppeal(id);
        puppet.arm(address(court), abi.encodeCall(court.takeBack, (vm.addr(0x777), LODGED)));
        trick.setHook(puppet);
        court.execute(id);
        trick.setHook(Puppet(address(0)));
        eq(puppet.landed(), 1, "once");
        eq(court.suretyOf(vm.addr(0x777)), 0, "all of it");
        eq(unsettled(), 0, "nothing stays, nothing is missing");
    }
}
