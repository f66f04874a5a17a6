// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommittee} from "../../src/interfaces/ICommittee.sol";
import {ILineageCourt} from "../../src/interfaces/ILineageCourt.sol";
import {LineageKit} from "../LineageKit.sol";

/// @notice Owners who contest each other's roots, answer or do not, appeal, and jurors who vote as they like, in any order and at
/// any time. Three owners with two roots each, the older ones first. Calls that the contracts refuse are part of it.
contract LineageHandler is LineageKit {
    uint256 private constant OWNERS = 3;
    uint256 private constant AGENTS = 6;
    uint256 private constant JURORS = 5;
    bytes32[] public ids;
    mapping(bytes32 id => bool) private known;
    mapping(bytes32 id => uint32) private firstRound;
    uint256 public adoptions;
    /// @notice Set when an agent got a parent otherwise than by a contest that was not answered or by a majority that said so.
    bool public adoptedWrongly;

    constructor() {
        deployLineage(JURORS);
        for (uint256 i = 0; i < OWNERS; ++i) {
            bankroll(_owner(i));
        }
        for (uint256 n = 0; n < AGENTS; ++n) {
            registerAs(_owner(n % OWNERS), _agent(n), 0);
            skip(1);
        }
    }

    function _owner(uint256 i) private pure returns (address) {
        return address(uint160(0x8000 + i));
    }

    function _agent(uint256 n) private pure returns (bytes32) {
        return keccak256(abi.encode("agent", n));
    }

    function _id(uint256 seed) private view returns (bytes32) {
        return ids.length == 0 ? bytes32(0) : ids[seed % ids.length];
    }

    function contest(uint256 seed) external {
        uint256 parent = seed % AGENTS;
        vm.prank(_owner(parent % OWNERS));
        try lineage.contest(_agent((seed >> 8) % AGENTS), _agent(parent), EVIDENCE) returns (bytes32 id) {
            if (!known[id]) ids.push(id);
            known[id] = true;
            firstRound[id] = lineage.disputes(id).round;
        } catch {}
    }

    function answer(uint256 seed) external {
        bytes32 id = _id(seed);
        vm.prank(lineage.disputes(id).accused);
        try lineage.answer(id) {} catch {}
    }

    function uphold(uint256 seed) external {
        bytes32 id = _id(seed);
        ICommittee.DisputeView memory d = lineage.disputes(id);
        (bytes32 agent,, uint40 answerBy) = lineage.contests(id);
        bool root = parentOf(agent) == 0;
        try lineage.uphold(id) {
            if (d.phase != ICommittee.Phase.Asked || vm.getBlockTimestamp() < answerBy) adoptedWrongly = true;
        } catch {}
        _count(agent, root);
    }

    function draw(uint256 seed, uint256 lateness) external {
        bytes32 id = _id(seed);
        uint256 drawBlock = lineage.disputes(id).drawBlock;
        if (vm.getBlockNumber() <= drawBlock) vm.roll(drawBlock + 1 + (lateness % 10 == 0 ? 300 : 0));
        vm.setBlockhash(drawBlock, keccak256(abi.encode(seed, drawBlock)));
        try lineage.draw(id) {} catch {}
    }

    /// @dev Half of the jurors vote guilty, a quarter honest, a quarter not at all; some do not reveal.
    function voteAll(uint256 seed, uint256 pattern) external {
        bytes32 id = _id(seed);
        uint32 round = lineage.disputes(id).round;
        address[] memory jurors = lineage.jurorsOf(id, round);
        for (uint256 i = 0; i < jurors.length; ++i) {
            uint256 choice = (pattern >> (2 * i)) % 4;
            if (choice == 3) continue;
            bytes32 sealed_ =
                lineage.voteCommitment(id, round, jurors[i], choice == 0 ? HONEST : GUILTY, EVIDENCE, SALT);
            vm.prank(jurors[i]);
            try lineage.commit(id, sealed_) {} catch {}
        }
        if (seed % 3 == 0) skip(courtParams().commitWindow);
        for (uint256 i = 0; i < jurors.length; ++i) {
            uint256 choice = (pattern >> (2 * i)) % 4;
            if ((pattern >> (128 + 3 * i)) % 8 == 7) continue;
            vm.prank(jurors[i]);
            try lineage.reveal(id, choice == 0 ? HONEST : GUILTY, EVIDENCE, SALT) {} catch {}
        }
    }

    function tally(uint256 seed) external {
        try lineage.tally(_id(seed)) {} catch {}
    }

    function appeal(uint256 seed) external {
        bytes32 id = _id(seed);
        ICommittee.DisputeView memory d = lineage.disputes(id);
        vm.prank(d.verdict == GUILTY ? d.accused : d.challenger);
        try lineage.appeal(id) {} catch {}
    }

    function execute(uint256 seed) external {
        bytes32 id = _id(seed);
        ICommittee.DisputeView memory d = lineage.disputes(id);
        (bytes32 agent,,) = lineage.contests(id);
        bool root = parentOf(agent) == 0;
        try lineage.execute(id) {} catch {}
        if (root && parentOf(agent) != 0) {
            bool due = d.phase == ICommittee.Phase.Ruled && vm.getBlockTimestamp() >= d.appealBy;
            if (!due || d.verdict != GUILTY || !_someRoundConvicted(id, d.round)) adoptedWrongly = true;
        }
        _count(agent, root);
    }

    function wait(uint256 delta) external {
        skip(bound(delta, 1, 2 days));
    }

    function _count(bytes32 agent, bool root) private {
        if (root && parentOf(agent) != 0) ++adoptions;
    }

    /// @dev Counts the votes again, one by one.
    function _someRoundConvicted(bytes32 id, uint32 last) private view returns (bool) {
        for (uint32 round = 1; round <= last; ++round) {
            address[] memory jurors = lineage.jurorsOf(id, round);
            uint256 guilty = 0;
            for (uint256 i = 0; i < jurors.length; ++i) {
                if (lineage.votes(id, round, jurors[i]).verdict == GUILTY) ++guilty;
            }
            if (guilty >= 2 && 2 * guilty > jurors.length) return true;
        }
        return false;
    }

    // ---- what the invariants read

    /// @dev The challenger's bond while it waits; with an answer one more, the appeals' doubled ones, and the votes' deposits; and
    /// everybody's surety.
    function bonds() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(lineage));
        for (uint256 i = 0; i < ids.length; ++i) {
            ICommittee.DisputeView memory d = lineage.disputes(ids[i]);
            if (d.phase == ICommittee.Phase.Asked) owed += bond();
            bool open = d.phase == ICommittee.Phase.Drawing || d.phase == ICommittee.Phase.Voting
                || d.phase == ICommittee.Phase.Ruled;
            if (open) owed += bond() * (2 << d.appeals) + setAside(ids[i], firstRound[ids[i]]);
        }
        owed += sureties();
    }

    function lineageIsSound() external view returns (bool) {
        uint256 adopted = 0;
        for (uint256 n = 0; n < AGENTS; ++n) {
            (, bytes32 parent,,, uint32 since,,) = registry.agents(_agent(n));
            if (parent == 0) continue;
            ++adopted;
            (,,,, uint32 parentSince,,) = registry.agents(parent);
            if (parentSince >= since) return false;
        }
        return adopted == adoptions;
    }

    function stakesUntouched() external view returns (bool) {
        return
            coin.balanceOf(address(staking)) == HOST_STAKE + JURORS * MIN_STAKE && staking.operatorCount() == JURORS + 1;
    }
}

contract LineageInvariants is LineageKit {
    LineageHandler private handler;

    function setUp() public {
        handler = new LineageHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// forge-config: default.invariant.runs = 24
    /// forge-config: default.invariant.depth = 150
    /// forge-config: long.invariant.runs = 2000
    /// forge-config: long.invariant.depth = 256
    function invariant_L1_to_L4() external view {
        _L1_court_holds_exactly_the_open_bonds();
        _L2_no_adoption_without_silence_or_quorum();
        _L3_parents_are_older();
        _L4_no_stake_moves();
    }

    /// @notice Driven straight the same handler reaches an adoption by silence and one by a ruling.
    function test_the_handler_reaches_adoptions() external {
        handler.contest((4 << 8) + 2); // agent 4, parent 0
        handler.wait(2 days - 1);
        handler.wait(1);
        handler.wait(1);
        handler.uphold(0);
        eq(handler.adoptions(), 1, "by silence");
        handler.contest((5 << 8) + 5); // agent 5, parent 1
        handler.answer(1);
        handler.draw(1, 1);
        handler.voteAll(1, type(uint128).max / 3);
        handler.tally(1);
        handler.execute(1);
        eq(handler.adoptions(), 1, "not in the window");
        handler.wait(1 days - 1);
        handler.execute(1);
        eq(handler.adoptions(), 2, "by a ruling");
        this.invariant_L1_to_L4();
    }

    function _L1_court_holds_exactly_the_open_bonds() private view {
        (uint256 held, uint256 owed) = handler.bonds();
        eq(held, owed, "L1: the lineage court holds the open bonds");
    }

    function _L2_no_adoption_without_silence_or_quorum() private view {
        vm.assertTrue(!handler.adoptedWrongly(), "L2: only silence or a guilty quorum after its window adopts");
    }

    function _L3_parents_are_older() private view {
        vm.assertTrue(handler.lineageIsSound(), "L3: a parent is older, and was adopted by a contest");
    }

    function _L4_no_stake_moves() private view {
        vm.assertTrue(handler.stakesUntouched(), "L4: a contest touches no stake");
    }
}
