// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Coins} from "./Coins.sol";
import {Lottery} from "./Lottery.sol";
import {Payments} from "./Payments.sol";
import {ICommittee} from "./interfaces/ICommittee.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Committees of operators that rule by commit and reveal
/// @notice Owns draw, votes, rulings, appeals and bonds. What a case is about, who owns the accused and what a verdict does is
/// its courts' business. Holds only sureties, bonds and deposits of open disputes, and what a payee could not be paid.
abstract contract Committee is Payments, ICommittee {
    using Coins for IERC20;

    uint8 internal constant HONEST = 1;
    uint8 internal constant GUILTY = 2;
    uint8 private constant MAX_APPEALS = 2;

    /// @dev `firstRound` is the first round since the last opening; rounds count on when a void dispute is opened again, so
    /// that no vote of an earlier opening can be taken for a new one. `asOf` is the second before the round was armed: `pool`
    /// operators were active when it ended, and nobody can change that any more. `payer` is whose money `signer` spent.
    struct Dispute {
        address accused;
        Phase phase;
        uint8 verdict;
        uint8 appeals;
        uint32 round;
        uint32 firstRound;
        address challenger;
        uint96 amount;
        address signer;
        uint48 drawBlock;
        uint40 appealBy;
        address payer;
        uint40 asOf;
        uint24 pool;
        uint32 version;
        bytes32 subject;
    }

    /// @dev Whoever armed the round put `bond` on `side`; it may be lost once the round is `ruled`. Each vote has `deposit` of its
    /// juror's surety.
    struct Round {
        address backer;
        uint96 bond;
        uint8 side;
        bool ruled;
        uint8 committed;
        uint8 revealed;
        uint8 guilty;
        uint8 honest;
        uint40 commitBy;
        uint40 revealBy;
        uint96 deposit;
        address[] jurors;
    }

    IStaking public immutable staking;
    IParameters public immutable parameters;

    /// @inheritdoc ICommittee
    mapping(address juror => uint256) public suretyOf;
    mapping(bytes32 id => Dispute) internal _disputes;
    mapping(bytes32 id => mapping(uint32 round => Round)) internal _rounds;
    mapping(bytes32 id => mapping(uint32 round => mapping(address juror => Vote))) private _votes;

    constructor(IERC20 coin_, IStaking staking_, IParameters parameters_) Payments(coin_) {
        require(address(staking_.coin()) == address(coin_), BadParams());
        staking = staking_;
        parameters = parameters_;
    }

    /// @inheritdoc ICommittee
    function draw(bytes32 id) external {
        Dispute storage d = _in(id, Phase.Drawing);
        require(block.number > d.drawBlock, TooEarlyBlock(uint256(d.drawBlock) + 1));
        IParameters.CourtParams memory p = _paramsOf(d);
        bytes32 entropy = blockhash(d.drawBlock);
        if (entropy == 0) {
            _setDrawBlock(d, p);
            emit Rearmed(id, d.drawBlock);
            return;
        }
        // Every appeal makes 2n + 1 of n.
        uint256 size = ((uint256(p.committeeSize) + 1) << d.appeals) - 1;
        bytes32 seed = keccak256(abi.encode(entropy, id, d.round));
        address[] memory jurors = Lottery.pick(staking, seed, size, d.pool, d.asOf, _excluded(id, d));
        if (jurors.length < p.quorum) {
            _noQuorum(id, d);
            return;
        }
        Round storage r = _rounds[id][d.round];
        d.phase = Phase.Voting;
        r.jurors = jurors;
        r.commitBy = uint40(block.timestamp) + p.commitWindow;
        r.revealBy = r.commitBy + p.revealWindow;
        r.deposit = p.voteDeposit;
        for (uint256 i = 0; i < jurors.length; ++i) {
            _votes[id][d.round][jurors[i]].seated = true;
        }
        emit Drawn(id, d.round, jurors, r.commitBy, r.revealBy);
    }

    /// @inheritdoc ICommittee
    function commit(bytes32 id, bytes32 commitment) external {
        Dispute storage d = _in(id, Phase.Voting);
        Round storage r = _rounds[id][d.round];
        require(block.timestamp < r.commitBy, TooLate(r.commitBy));
        Vote storage vote = _votes[id][d.round][msg.sender];
        require(vote.seated && vote.commitment == 0 && commitment != 0, NoSeat(msg.sender));
        uint256 deposit = r.deposit;
        uint256 surety = suretyOf[msg.sender];
        require(surety >= deposit, NoSurety(msg.sender, deposit));
        suretyOf[msg.sender] = surety - deposit;
        vote.commitment = commitment;
        ++r.committed;
        emit Committed(id, d.round, msg.sender);
    }

    /// @inheritdoc ICommittee
    function reveal(bytes32 id, uint8 verdict, bytes32 evidence, bytes32 salt) external {
        Dispute storage d = _in(id, Phase.Voting);
        Round storage r = _rounds[id][d.round];
        require(block.timestamp >= r.commitBy || r.committed == r.jurors.length, TooEarly(r.commitBy));
        require(block.timestamp < r.revealBy, TooLate(r.revealBy));
        Vote storage vote = _votes[id][d.round][msg.sender];
        require(vote.commitment != 0 && vote.verdict == 0, NoSeat(msg.sender));
        bytes32 opened = voteCommitment(id, d.round, msg.sender, verdict, evidence, salt);
        require((verdict == HONEST || verdict == GUILTY) && vote.commitment == opened, BadReveal());
        vote.verdict = verdict;
        ++r.revealed;
        if (verdict == GUILTY) ++r.guilty;
        else ++r.honest;
        emit Revealed(id, d.round, msg.sender, verdict, evidence);
    }

    /// @inheritdoc ICommittee
    function tally(bytes32 id) external {
        Dispute storage d = _in(id, Phase.Voting);
        Round storage r = _rounds[id][d.round];
        uint256 seats = r.jurors.length;
        bool committing = block.timestamp < r.commitBy && r.committed < seats;
        bool revealing = block.timestamp < r.revealBy && r.revealed < r.committed;
        require(!committing && !revealing, TooEarly(committing ? r.commitBy : r.revealBy));
        IParameters.CourtParams memory p = _paramsOf(d);
        uint256 quorum = seats / 2 + 1;
        if (quorum < p.quorum) quorum = p.quorum;
        if (r.guilty < quorum && r.honest < quorum) {
            _noQuorum(id, d);
            return;
        }
        uint8 verdict = r.guilty >= quorum ? GUILTY : HONEST;
        r.ruled = true;
        d.verdict = verdict;
        d.phase = Phase.Ruled;
        d.appealBy = uint40(block.timestamp) + p.appealWindow;
        emit Ruled(id, d.round, verdict, d.appealBy);
    }

    /// @inheritdoc ICommittee
    function appeal(bytes32 id) external {
        Dispute storage d = _in(id, Phase.Ruled);
        require(block.timestamp < d.appealBy, TooLate(d.appealBy));
        bool guilty = d.verdict == GUILTY;
        require(_lost(id, d, msg.sender) && d.appeals < MAX_APPEALS, MayNotAppeal(msg.sender));
        IParameters.CourtParams memory p = _paramsOf(d);
        ++d.appeals;
        uint96 bond = p.bond << d.appeals;
        _pledge(id, d, guilty ? HONEST : GUILTY, bond);
        _arm(d, p);
        emit Appealed(id, d.round, msg.sender, bond, d.drawBlock);
        coin.pull(msg.sender, bond);
    }

    /// @inheritdoc ICommittee
    function execute(bytes32 id) external {
        Dispute storage d = _in(id, Phase.Ruled);
        require(block.timestamp >= d.appealBy, TooEarly(d.appealBy));
        d.phase = Phase.Closed;
        uint256 reward = _carryOut(id, d);
        _settleBonds(id, d, reward);
    }

    /// @inheritdoc ICommittee
    function lodge(address juror, uint96 amount) external {
        require(_ownerOf(juror) != address(0), NotYours(juror));
        suretyOf[juror] += amount;
        emit Lodged(juror, msg.sender, amount);
        coin.pull(msg.sender, amount);
    }

    /// @inheritdoc ICommittee
    function takeBack(address juror, uint96 amount) external {
        require(_ownerOf(juror) == msg.sender, NotYours(juror));
        uint256 surety = suretyOf[juror];
        require(surety >= amount, NoSurety(juror, amount));
        suretyOf[juror] = surety - amount;
        emit TakenBack(juror, msg.sender, amount);
        _send(msg.sender, amount);
    }

    /// @inheritdoc ICommittee
    function disputes(bytes32 id) external view returns (DisputeView memory) {
        Dispute storage d = _disputes[id];
        Round storage r = _rounds[id][d.round];
        return DisputeView({
            phase: d.phase,
            verdict: d.verdict,
            appeals: d.appeals,
            round: d.round,
            accused: d.accused,
            challenger: d.challenger,
            signer: d.signer,
            amount: d.amount,
            subject: d.subject,
            drawBlock: d.drawBlock,
            commitBy: r.commitBy,
            revealBy: r.revealBy,
            appealBy: d.appealBy,
            seats: uint8(r.jurors.length),
            committed: r.committed,
            revealed: r.revealed,
            guilty: r.guilty,
            honest: r.honest
        });
    }

    /// @inheritdoc ICommittee
    function jurorsOf(bytes32 id, uint32 round) external view returns (address[] memory) {
        return _rounds[id][round].jurors;
    }

    /// @inheritdoc ICommittee
    function votes(bytes32 id, uint32 round, address juror) external view returns (Vote memory) {
        return _votes[id][round][juror];
    }

    /// @inheritdoc ICommittee
    function params() external view returns (IParameters.CourtParams memory p) {
        (, p) = _current();
    }

    /// @inheritdoc ICommittee
    function paramsOf(bytes32 id) external view returns (IParameters.CourtParams memory) {
        return _paramsOf(_disputes[id]);
    }

    /// @inheritdoc ICommittee
    function voteCommitment(bytes32 id, uint32 round, address juror, uint8 verdict, bytes32 evidence, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(id, round, juror, verdict, evidence, salt));
    }

    // ---- what a court decides

    /// @dev Whom the accused belongs to: it may appeal, and gets what the accused wins.
    function _accusedOwner(address accused) internal view virtual returns (address);

    /// @dev Does what the final verdict says, the books first; returns what it adds to the jurors' pot.
    function _carryOut(bytes32 id, Dispute storage d) internal virtual returns (uint256 reward);

    /// @dev The dispute is void; its bonds go back afterwards.
    function _release(Dispute storage d) internal virtual;

    // ---- for the courts

    /// @dev Starts a dispute, or one that was void once more, under the version in force.
    function _begin(Dispute storage d) internal returns (IParameters.CourtParams memory p) {
        (d.version, p) = _current();
        d.verdict = 0;
        d.firstRound = d.round + 1;
    }

    /// @dev The dispute, which must be in this phase.
    function _in(bytes32 id, Phase phase) internal view returns (Dispute storage d) {
        d = _disputes[id];
        require(d.phase == phase, WrongPhase(d.phase));
    }

    /// @dev Every dispute keeps the version under which it was opened.
    function _paramsOf(Dispute storage d) internal view returns (IParameters.CourtParams memory) {
        return parameters.courtAt(d.version);
    }

    /// @dev Begins a round with the caller's bond; the courts take the coins last.
    function _pledge(bytes32 id, Dispute storage d, uint8 side, uint96 bond) internal {
        ++d.round;
        Round storage r = _rounds[id][d.round];
        r.backer = msg.sender;
        r.bond = bond;
        r.side = side;
    }

    function _arm(Dispute storage d, IParameters.CourtParams memory p) internal {
        d.phase = Phase.Drawing;
        d.appealBy = 0;
        _setDrawBlock(d, p);
    }

    function _pay(bytes32 id, address to, uint256 amount) internal {
        if (amount == 0) return;
        emit Paid(id, to, amount);
        _send(to, amount);
    }

    /// @dev Fixes who can be drawn before the randomness is known.
    function _setDrawBlock(Dispute storage d, IParameters.CourtParams memory p) private {
        d.drawBlock = uint48(block.number) + p.drawDelayBlocks;
        d.asOf = uint40(block.timestamp) - 1;
        d.pool = uint24(staking.operatorCountAt(d.asOf));
    }

    /// @dev In one place, like `_paramsOf`: decoding so many fields is a good part of the contract's size.
    function _current() private view returns (uint32 version, IParameters.CourtParams memory p) {
        return parameters.court();
    }

    function _speaksForAccused(Dispute storage d, address who) private view returns (bool) {
        return who == d.accused || who == _accusedOwner(d.accused);
    }

    /// @dev Whether the ruling went against `who`: the side that lost, and the jurors who said otherwise.
    function _lost(bytes32 id, Dispute storage d, address who) private view returns (bool) {
        if (d.verdict == GUILTY ? _speaksForAccused(d, who) : who == d.challenger) return true;
        uint8 said = _votes[id][d.round][who].verdict;
        return said != 0 && said != d.verdict;
    }

    /// @dev The parties, the appellant, the consumer, and whoever owns one of them. Owners count as of the arming, except the
    /// accused's, which cannot change: a party that finds itself an owner after the randomness is known excludes nobody.
    function _excluded(bytes32 id, Dispute storage d) private view returns (address[10] memory out) {
        address owner = _accusedOwner(d.accused);
        out[0] = d.accused;
        out[1] = owner == d.accused ? _ownerThen(d, owner) : owner;
        out[2] = d.challenger;
        out[3] = _ownerThen(d, d.challenger);
        if (d.appeals != 0) {
            out[8] = _rounds[id][d.round].backer;
            out[9] = _ownerThen(d, out[8]);
        }
        if (d.signer == address(0)) return out;
        out[4] = d.signer;
        out[5] = _ownerThen(d, d.signer);
        if (d.payer == d.signer) return out;
        out[6] = d.payer;
        out[7] = _ownerThen(d, d.payer);
    }

    function _ownerOf(address operator) internal view returns (address) {
        return staking.ownerOf(operator);
    }

    function _ownerThen(Dispute storage d, address who) private view returns (address) {
        return staking.ownerAt(who, d.asOf);
    }

    /// @dev Without a quorum nobody is convicted: the dispute is void; an appeal leaves the ruling before it in force.
    function _noQuorum(bytes32 id, Dispute storage d) private {
        if (d.appeals != 0) {
            d.phase = Phase.Ruled;
            d.appealBy = uint40(block.timestamp);
            emit Stands(id, d.round, d.verdict);
            return;
        }
        d.phase = Phase.Void;
        // A coin that calls its payee lets it open the dispute again before the others are paid.
        uint32 last = d.round;
        emit Voided(id, last);
        _release(d);
        for (uint32 n = d.firstRound; n <= last; ++n) {
            Round storage r = _rounds[id][n];
            _pay(id, r.backer, r.bond);
        }
        _settleVoid(id, last, d.challenger);
    }

    /// @dev Of the one committee of a void dispute: who never opened its vote pays those who did.
    function _settleVoid(bytes32 id, uint32 n, address challenger) private {
        Round storage r = _rounds[id][n];
        uint256 pot = _forfeited(r, 0);
        uint256 opened = r.revealed;
        _pay(id, challenger, opened == 0 ? pot : pot % opened);
        _settleVotes(id, n, 0, opened == 0 ? 0 : pot / opened);
    }

    /// @dev Bonds on the right side, and those of rounds that found no quorum, go back. The others go half to the opponent,
    /// half to the jurors who voted as ruled, in whatever round. A juror whose appeal prevailed is the opponent.
    function _settleBonds(bytes32 id, Dispute storage d, uint256 pot) private {
        address opponent = d.verdict == GUILTY ? d.challenger : _accusedOwner(d.accused);
        uint256 toOpponent = 0;
        uint256 winners = 0;
        for (uint32 n = d.firstRound; n <= d.round; ++n) {
            Round storage r = _rounds[id][n];
            winners += d.verdict == GUILTY ? r.guilty : r.honest;
            pot += _forfeited(r, d.verdict);
            if (r.ruled && r.side != d.verdict) {
                toOpponent += r.bond / 2;
                pot += r.bond - r.bond / 2;
            } else {
                if (n != d.firstRound && r.side == d.verdict && !_speaksForAccused(d, r.backer)) opponent = r.backer;
                _pay(id, r.backer, r.bond);
            }
        }
        _pay(id, opponent, toOpponent + pot % winners);
        uint256 each = pot / winners;
        for (uint32 n = d.firstRound; n <= d.round; ++n) {
            _settleVotes(id, n, d.verdict, each);
        }
    }

    /// @dev What the votes of a round lose: all who were outvoted or never opened, where the round ruled; elsewhere half of what
    /// was never opened. Otherwise whoever sees that it will be outvoted would rather say nothing.
    function _forfeited(Round storage r, uint8 verdict) private view returns (uint256) {
        uint256 deposit = r.deposit;
        uint256 silent = r.committed - r.revealed;
        if (!r.ruled) return silent * (deposit / 2);
        return (silent + (verdict == GUILTY ? r.honest : r.guilty)) * deposit;
    }

    /// @dev Frees what the votes of a round do not lose, and pays `each` to the owners of those who were right: who voted as
    /// ruled, or, where nothing was (0), all who opened.
    function _settleVotes(bytes32 id, uint32 n, uint8 verdict, uint256 each) private {
        Round storage r = _rounds[id][n];
        uint256 deposit = r.deposit;
        bool ruled = r.ruled;
        address[] storage jurors = r.jurors;
        for (uint256 i = 0; i < jurors.length; ++i) {
            address juror = jurors[i];
            Vote storage vote = _votes[id][n][juror];
            uint8 said = vote.verdict;
            if (said == 0) {
                if (!ruled && vote.commitment != 0) _free(id, juror, deposit - deposit / 2);
                continue;
            }
            bool right = verdict == 0 || said == verdict;
            if (right || !ruled) _free(id, juror, deposit);
            if (right) _pay(id, _ownerOf(juror), each);
        }
    }

    function _free(bytes32 id, address juror, uint256 amount) private {
        suretyOf[juror] += amount;
        emit Freed(id, juror, amount);
    }
}
