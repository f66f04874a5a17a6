// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../../src/interfaces/IAuditCourt.sol";
import {ICommittee} from "../../src/interfaces/ICommittee.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {CourtKit} from "../CourtKit.sol";

/// @notice Does anything that hosts, challengers, jurors, passers-by and the governor may do, in any order and at any time.
/// Two hosts with an owner each, six jurors. Calls that the contracts refuse are part of it.
contract CourtHandler is CourtKit {
    uint256 private constant HOSTS = 2;
    uint256 private constant JURORS = 6;
    bytes32[] public ids;
    /// @dev Two hosts, then the jurors. Kept, because deriving an address from a key is slow.
    address[] private operators;
    mapping(bytes32 id => bool) private known;
    uint256 private jobs;
    /// @notice Set when a stake shrank other than by its owner's unstaking or by a guilty ruling that was due.
    bool public slashedWrongly;
    uint256 public slashes;
    /// @dev What the list of active operators looked like when a second had ended, by moment.
    uint40[] private moments;
    mapping(uint40 moment => bytes32) private pictures;
    /// @notice Set when an open dispute's parameters were not those that it had opened with.
    bool public retunedWrongly;
    mapping(bytes32 id => bytes32) private openedWith;
    mapping(bytes32 id => uint32) private firstRound;
    /// @notice Set when a surety shrank other than by its owner's taking back or by sealing a vote, or when a ruling did not free
    /// exactly the votes that agree with it.
    bool public pledgedWrongly;
    uint256 public forfeits;

    constructor() {
        deployAll();
        operators.push(host);
        operators.push(vm.addr(0x601));
        for (uint256 i = 0; i < JURORS; ++i) {
            operators.push(vm.addr(jurorKey(i)));
        }
        enrol(JURORS);
        staking.stake(_hostOf(1), HOST_STAKE, sign65(0x601, staking.stakeConsentDigest(address(this))));
        lodgeFor(_hostOf(1));
        skip(1);
    }

    function _hostKey(uint256 i) private pure returns (uint256) {
        return i == 0 ? HOST_KEY : 0x601;
    }

    function _hostOf(uint256 i) private view returns (address) {
        return operators[i];
    }

    function _id(uint256 seed) private view returns (bytes32) {
        return ids.length == 0 ? bytes32(0) : ids[seed % ids.length];
    }

    function open(uint256 seed) external {
        IAuditCourt.Receipt memory r = receipt();
        r.host = _hostOf(seed % HOSTS);
        r.job = bytes32(bound(seed >> 8, 0, 3));
        r.amount = uint96(bound(seed >> 16, 0, 900 * COIN));
        bytes memory signature = sign65(_hostKey(seed % HOSTS), court.receiptDigest(r));
        vm.prank(challenger);
        try court.open(r, signature) returns (bytes32 id) {
            _opened(id);
        } catch {}
    }

    /// @notice The same by way of a root that the host anchored, alone in its tree.
    function openAnchored(uint256 seed) external {
        IAuditCourt.Receipt memory r = receipt();
        r.host = _hostOf(seed % HOSTS);
        r.job = bytes32(bound(seed >> 8, 0, 3));
        bytes memory signature = new bytes(65);
        bytes32 leaf = sha256(bytes.concat(abi.encode(r), signature));
        if (seed % 5 != 0) {
            vm.prank(r.host);
            court.anchor(leaf, 1);
        }
        (, uint32 count) = court.anchorOf(r.host, leaf);
        vm.prank(challenger);
        try court.openAnchored(r, signature, leaf, 0, new bytes32[](0)) returns (bytes32 id) {
            if (count == 0) slashedWrongly = true;
            _opened(id);
        } catch {}
    }

    function _opened(bytes32 id) private {
        if (!known[id]) ids.push(id);
        known[id] = true;
        openedWith[id] = keccak256(abi.encode(court.params()));
        firstRound[id] = court.disputes(id).round;
    }

    /// @notice The governor, anywhere within the bounds.
    function retune(uint256 seed) external {
        IParameters.CourtParams memory p = courtParams();
        p.bond = uint96(bound(seed, p.bond / 4, p.bond * 4));
        p.voteDeposit = uint96(bound(seed >> 16, p.voteDeposit, p.bond < 4 * COIN ? p.bond : 4 * COIN));
        p.slashBps = uint16(bound(seed >> 32, 1, p.slashBps));
        p.rewardBps = uint16(bound(seed >> 64, 0, p.rewardBps));
        p.committeeSize = uint8(bound(seed >> 96, 3, 7));
        p.quorum = uint8(bound(seed >> 112, p.committeeSize / 2 + 1, p.committeeSize));
        p.commitWindow = uint32(bound(seed >> 128, p.commitWindow, 2 * p.commitWindow));
        p.appealWindow = uint32(bound(seed >> 160, p.appealWindow, 2 * p.appealWindow));
        parameters.setCourt(p);
        for (uint256 i = 0; i < ids.length; ++i) {
            if (openedWith[ids[i]] != keccak256(abi.encode(court.paramsOf(ids[i])))) retunedWrongly = true;
        }
    }

    function draw(uint256 seed, uint256 lateness) external {
        bytes32 id = _id(seed);
        uint256 drawBlock = court.disputes(id).drawBlock;
        if (vm.getBlockNumber() <= drawBlock) vm.roll(drawBlock + 1 + (lateness % 10 == 0 ? 300 : 0));
        vm.setBlockhash(drawBlock, keccak256(abi.encode(seed, drawBlock)));
        try court.draw(id) {} catch {}
    }

    function commitAll(uint256 seed, uint256 pattern) external {
        bytes32 id = _id(seed);
        uint32 round = court.disputes(id).round;
        address[] memory jurors = court.jurorsOf(id, round);
        for (uint256 i = 0; i < jurors.length; ++i) {
            uint256 choice = (pattern >> (2 * i)) % 4;
            // Half of the campaigns' jurors vote guilty, a quarter honest, a quarter not at all.
            if (choice == 3) continue;
            uint8 verdict = choice == 0 ? HONEST : GUILTY;
            bytes32 commitment = court.voteCommitment(id, round, jurors[i], verdict, EVIDENCE, SALT);
            vm.prank(jurors[i]);
            try court.commit(id, commitment) {} catch {}
        }
    }

    function revealAll(uint256 seed, uint256 pattern) external {
        bytes32 id = _id(seed);
        address[] memory jurors = court.jurorsOf(id, court.disputes(id).round);
        for (uint256 i = 0; i < jurors.length; ++i) {
            if ((pattern >> (3 * i)) % 8 == 7) continue;
            for (uint8 verdict = 1; verdict <= 2; ++verdict) {
                vm.prank(jurors[i]);
                try court.reveal(id, verdict, EVIDENCE, SALT) {} catch {}
            }
        }
    }

    function tally(uint256 seed) external {
        try court.tally(_id(seed)) {} catch {}
    }

    function appeal(uint256 seed) external {
        bytes32 id = _id(seed);
        ICommittee.DisputeView memory d = court.disputes(id);
        address who = d.verdict == GUILTY ? address(this) : challenger;
        // Now and then a juror, whom the ruling may have outvoted.
        if (seed % 2 == 0 && d.seats != 0) who = court.jurorsOf(id, d.round)[(seed >> 8) % d.seats];
        coin.transfer(who, who == address(this) ? 0 : 4 * uint256(court.paramsOf(id).bond));
        vm.prank(who);
        coin.approve(address(court), type(uint256).max);
        bool lost = who == challenger || who == address(this) || _outvoted(id, d, who);
        vm.prank(who);
        try court.appeal(id) {
            if (!lost) pledgedWrongly = true;
        } catch {}
    }

    function _outvoted(bytes32 id, ICommittee.DisputeView memory d, address who) private view returns (bool) {
        uint8 said = court.votes(id, d.round, who).verdict;
        return said != 0 && said != d.verdict;
    }

    function lodge(uint256 seed, bool back) external {
        address juror = operators[seed % operators.length];
        uint96 amount = uint96(bound(seed >> 8, 0, 3 * COIN));
        if (!back) {
            court.lodge(juror, amount);
            return;
        }
        uint256 before = court.suretyOf(juror);
        vm.prank(seed % 4 == 0 ? challenger : staking.ownerOf(juror));
        try court.takeBack(juror, amount) {
            if (seed % 4 == 0 || amount > before) pledgedWrongly = true;
        } catch {}
    }

    function execute(uint256 seed) external {
        bytes32 id = _id(seed);
        ICommittee.DisputeView memory d = court.disputes(id);
        uint256 before = staking.slashable(d.accused);
        uint256[] memory held_ = _sureties();
        try court.execute(id) {
            _checkSureties(id, held_);
        } catch {}
        uint256 lost = before - staking.slashable(d.accused);
        if (lost == 0) return;
        ++slashes;
        bool due = d.phase == ICommittee.Phase.Ruled && d.verdict == GUILTY && vm.getBlockTimestamp() >= d.appealBy;
        if (!due || !_someRoundConvicted(id, d.round) || lost > before / 2) slashedWrongly = true;
    }

    function _sureties() private view returns (uint256[] memory held_) {
        held_ = new uint256[](operators.length);
        for (uint256 i = 0; i < held_.length; ++i) {
            held_[i] = court.suretyOf(operators[i]);
        }
    }

    /// @dev Every vote as ruled came back whole, and nobody got more than all its votes had set aside.
    function _checkSureties(bytes32 id, uint256[] memory held_) private {
        ICommittee.DisputeView memory d = court.disputes(id);
        uint256 deposit = court.paramsOf(id).voteDeposit;
        for (uint256 i = 0; i < held_.length; ++i) {
            (uint256 right, uint256 all) = (0, 0);
            for (uint32 n = firstRound[id]; n <= d.round; ++n) {
                ICommittee.Vote memory v = court.votes(id, n, operators[i]);
                if (v.commitment != 0) ++all;
                if (v.verdict == d.verdict) ++right;
            }
            uint256 freed = court.suretyOf(operators[i]) - held_[i];
            if (freed < right * deposit || freed > all * deposit) pledgedWrongly = true;
            if (freed < all * deposit) ++forfeits;
        }
    }

    function unstake(uint256 seed, bool finish) external {
        address operator = seed % 3 < HOSTS ? operators[seed % 3] : operators[HOSTS + seed % JURORS];
        address owner = staking.ownerOf(operator);
        (, uint96 stake, uint96 unbonding, uint40 unlockAt,, uint24 open_) = staking.operators(operator);
        if (!finish && stake != 0) {
            vm.prank(owner);
            staking.requestUnstake(operator, uint96(bound(seed >> 8, 1, stake)));
        } else if (unbonding != 0) {
            uint256 before = coin.balanceOf(owner);
            try staking.finishUnstake(operator) {
                bool late = vm.getBlockTimestamp() >= unlockAt && open_ == 0;
                if (!late || coin.balanceOf(owner) - before != unbonding) slashedWrongly = true;
            } catch {}
        }
    }

    function restake(uint256 seed, uint96 amount) external {
        staking.stake(_hostOf(seed % HOSTS), uint96(bound(amount, 1, 200 * COIN)), "");
    }

    function unjail(uint256 seed) external {
        try staking.unjail(_hostOf(seed % HOSTS)) {} catch {}
    }

    function wait(uint256 delta) external {
        uint40 moment = uint40(vm.getBlockTimestamp());
        moments.push(moment);
        pictures[moment] = _picture(moment);
        skip(bound(delta, 1, 1 days));
    }

    function _picture(uint40 moment) private view returns (bytes32 picture) {
        for (uint256 place = 0; place <= staking.operatorCountAt(moment); ++place) {
            (address operator, address owner) = staking.candidate(place, moment);
            picture = keccak256(abi.encode(picture, operator, owner));
        }
    }

    // ---- what the invariants read

    function stakes() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(staking));
        for (uint256 i = 0; i < HOSTS + JURORS; ++i) {
            owed += staking.slashable(_operator(i));
        }
    }

    /// @dev The court owes the bonds and the votes' deposits of every round of every dispute that is neither closed nor void, and
    /// everybody's surety.
    function bonds() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(court));
        for (uint256 i = 0; i < ids.length; ++i) {
            ICommittee.DisputeView memory d = court.disputes(ids[i]);
            if (!_isOpen(d.phase)) continue;
            owed += uint256(court.paramsOf(ids[i]).bond) * ((2 << d.appeals) - 1);
            owed += setAside(ids[i], firstRound[ids[i]]);
        }
        owed += sureties();
    }

    function activeListIsRight() external view returns (bool) {
        uint256 active = 0;
        for (uint256 i = 0; i < HOSTS + JURORS; ++i) {
            address operator = _operator(i);
            (, uint96 stake,,, uint40 jailedUntil,) = staking.operators(operator);
            bool listed = staking.isActive(operator);
            if (listed) ++active;
            if (listed && (stake < MIN_STAKE || jailedUntil > vm.getBlockTimestamp())) return false;
            // Only an operator out of a jail that has ended may be missing, until somebody calls unjail.
            if (!listed && stake >= MIN_STAKE && jailedUntil == 0) return false;
        }
        return active == staking.operatorCount();
    }

    /// @dev The last three pictures and the first.
    function pastIsKept() external view returns (bool) {
        uint256 n = moments.length;
        for (uint256 i = 0; i < 4 && i < n; ++i) {
            uint40 moment = moments[i == 3 ? 0 : n - 1 - i];
            if (_picture(moment) != pictures[moment]) return false;
        }
        return true;
    }

    function disputeCountsAreRight() external view returns (bool) {
        for (uint256 h = 0; h < HOSTS; ++h) {
            uint256 open_ = 0;
            for (uint256 i = 0; i < ids.length; ++i) {
                ICommittee.DisputeView memory d = court.disputes(ids[i]);
                if (d.accused == _hostOf(h) && _isOpen(d.phase)) ++open_;
            }
            (,,,,, uint24 counted) = staking.operators(_hostOf(h));
            if (counted != open_) return false;
        }
        return true;
    }

    function _operator(uint256 i) private view returns (address) {
        return operators[i];
    }

    function _isOpen(ICommittee.Phase phase) private pure returns (bool) {
        return phase == ICommittee.Phase.Drawing || phase == ICommittee.Phase.Voting || phase == ICommittee.Phase.Ruled;
    }

    /// @dev Counts the votes again, one by one.
    function _someRoundConvicted(bytes32 id, uint32 last) private view returns (bool) {
        for (uint32 round = 1; round <= last; ++round) {
            address[] memory jurors = court.jurorsOf(id, round);
            uint256 guilty = 0;
            for (uint256 i = 0; i < jurors.length; ++i) {
                if (court.votes(id, round, jurors[i]).verdict == GUILTY) ++guilty;
            }
            if (guilty >= 2 && 2 * guilty > jurors.length) return true;
        }
        return false;
    }
}

contract CourtInvariants is CourtKit {
    CourtHandler private handler;

    function setUp() public {
        handler = new CourtHandler();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// forge-config: default.invariant.runs = 24
    /// forge-config: default.invariant.depth = 150
    /// forge-config: long.invariant.runs = 2000
    /// forge-config: long.invariant.depth = 256
    function invariant_C1_to_C8() external view {
        _C1_stakes_conserved();
        _C2_court_holds_exactly_the_open_bonds();
        _C3_no_slash_without_quorum_and_window();
        _C4_open_disputes_are_counted();
        _C5_active_list_is_right();
        _C6_the_past_is_kept();
        _C7_open_disputes_keep_their_parameters();
        _C8_only_wrong_votes_cost();
    }

    /// @notice The same handler convicts when it is driven straight: the campaign can reach a slash.
    function test_the_handler_reaches_a_slash() external {
        handler.open(0);
        handler.draw(0, 1);
        handler.commitAll(0, type(uint256).max / 3);
        handler.revealAll(0, 0);
        handler.tally(0);
        handler.execute(0);
        eq(handler.slashes(), 0, "not in the window");
        handler.wait(1 days - 1);
        handler.wait(1 days - 1);
        handler.execute(0);
        eq(handler.slashes(), 1, "convicted");
        eq(handler.forfeits(), 0, "all agreed");
    }

    /// @notice And takes the deposit of a juror who is outvoted.
    function test_the_handler_reaches_a_forfeit() external {
        handler.open(0);
        handler.draw(0, 1);
        handler.commitAll(0, 0x14); // honest, guilty, guilty
        handler.revealAll(0, 0);
        handler.tally(0);
        handler.wait(1 days - 1);
        handler.wait(1 days - 1);
        handler.execute(0);
        eq(handler.forfeits(), 1, "one of three");
    }

    function _C1_stakes_conserved() private view {
        (uint256 held, uint256 owed) = handler.stakes();
        eq(held, owed, "C1: staking holds stake + unbonding");
    }

    function _C2_court_holds_exactly_the_open_bonds() private view {
        (uint256 held, uint256 owed) = handler.bonds();
        eq(held, owed, "C2: the court holds the open bonds");
    }

    function _C3_no_slash_without_quorum_and_window() private view {
        vm.assertTrue(!handler.slashedWrongly(), "C3: only a guilty quorum after its window slashes");
    }

    function _C4_open_disputes_are_counted() private view {
        vm.assertTrue(handler.disputeCountsAreRight(), "C4: openDisputes");
    }

    function _C5_active_list_is_right() private view {
        vm.assertTrue(handler.activeListIsRight(), "C5: active list");
    }

    function _C6_the_past_is_kept() private view {
        vm.assertTrue(handler.pastIsKept(), "C6: who was active when");
    }

    function _C7_open_disputes_keep_their_parameters() private view {
        vm.assertTrue(!handler.retunedWrongly(), "C7: paramsOf an open dispute");
    }

    function _C8_only_wrong_votes_cost() private view {
        vm.assertTrue(!handler.pledgedWrongly(), "C8: only a vote that is outvoted or never opened costs its deposit");
    }
}
