// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IParameters} from "./IParameters.sol";
import {IPayments} from "./IPayments.sol";

/// @title Committees of operators that rule by commit and reveal
/// @notice What both courts share: a committee drawn by later randomness among operators that have no part in the case, sealed
/// votes, a quorum, appeals to larger committees, and bonds. Silence never convicts: a round without a quorum gives the bonds
/// back. A vote needs a surety that its juror has lodged before: whoever is outvoted in the end loses what the vote had set
/// aside. A dispute keeps the parameters under which it was opened.
interface ICommittee is IPayments {
    /// @notice None: never opened. Drawing: waits for the block whose hash draws the committee. Voting: commits, then reveals.
    /// Ruled: waits for an appeal. Closed: executed, for ever. Void: no quorum, bonds are back; may be opened again. Asked: a
    /// contest of lineage that waits for its answer.
    enum Phase {
        None,
        Drawing,
        Voting,
        Ruled,
        Closed,
        Void,
        Asked
    }

    /// @notice What `disputes` shows: the dispute and its current round. Deadlines are seconds, exclusive; zero when not set.
    /// `subject` is what it is about: the digest of a receipt, or of a claim of lineage. `signer` and `amount` are the receipt's.
    struct DisputeView {
        Phase phase;
        uint8 verdict;
        uint8 appeals;
        uint32 round;
        address accused;
        address challenger;
        address signer;
        uint96 amount;
        bytes32 subject;
        uint48 drawBlock;
        uint40 commitBy;
        uint40 revealBy;
        uint40 appealBy;
        uint8 seats;
        uint8 committed;
        uint8 revealed;
        uint8 guilty;
        uint8 honest;
    }

    /// @notice A seat on a committee. `verdict` is 0 until revealed.
    struct Vote {
        bool seated;
        uint8 verdict;
        bytes32 commitment;
    }

    /// @notice At deployment: the parameters and the other contracts do not fit.
    error BadParams();
    /// @notice The dispute is not in the phase for this.
    error WrongPhase(Phase phase);
    /// @notice Not before this block.
    error TooEarlyBlock(uint256 blockNumber);
    /// @notice Not before this second.
    error TooEarly(uint256 until);
    /// @notice Too late: the deadline was this second.
    error TooLate(uint256 deadline);
    /// @notice The caller has no seat in this round, or used it.
    error NoSeat(address caller);
    /// @notice The juror's surety is less than this. Lodge more.
    error NoSurety(address juror, uint256 needed);
    /// @notice Only who owns the operator (who staked for it first) has a surety to lodge or take back.
    error NotYours(address juror);
    /// @notice The reveal does not open the commitment, or the verdict is neither 1 (honest) nor 2 (guilty).
    error BadReveal();
    /// @notice Only the side that lost may appeal (for a host: the operator or its owner), or a juror whom the ruling outvoted,
    /// and at most twice in all.
    error MayNotAppeal(address caller);

    /// @notice The block hash was out of reach: a later block draws.
    event Rearmed(bytes32 indexed id, uint256 drawBlock);
    event Drawn(bytes32 indexed id, uint32 round, address[] jurors, uint40 commitBy, uint40 revealBy);
    event Committed(bytes32 indexed id, uint32 round, address indexed juror);
    event Revealed(bytes32 indexed id, uint32 round, address indexed juror, uint8 verdict, bytes32 evidence);
    event Ruled(bytes32 indexed id, uint32 round, uint8 verdict, uint40 appealBy);
    /// @notice An appeal found no quorum: the ruling before it stands and may be executed at once.
    event Stands(bytes32 indexed id, uint32 round, uint8 verdict);
    event Appealed(bytes32 indexed id, uint32 round, address indexed appellant, uint256 bond, uint256 drawBlock);
    /// @notice Paid out of bonds and slash: to a juror's owner, the accused's owner, the challenger or an appellant.
    event Paid(bytes32 indexed id, address indexed to, uint256 amount);
    event Voided(bytes32 indexed id, uint32 round);
    event Lodged(address indexed juror, address indexed from, uint256 amount);
    event TakenBack(address indexed juror, address indexed owner, uint256 amount);
    /// @notice What a vote had set aside is part of its juror's surety again. What is not freed was lost, and is paid to others.
    event Freed(bytes32 indexed id, address indexed juror, uint256 amount);

    /// @notice Draws the committee from the hash of the draw block; anyone may send, the outcome is the same. Picks among the
    /// operators that were active in the second before the dispute (or appeal) was armed, whatever became of them since, except
    /// the two sides, the consumer and whoever shares an owner with them. Fewer eligible than a quorum: void, or on appeal the
    /// ruling stands.
    function draw(bytes32 id) external;

    /// @notice A juror's sealed vote: keccak256(abi.encode(id, round, juror, verdict, evidence, salt)). Binds the juror, so a
    /// copied commitment can never be revealed. Once. Sets a deposit aside from the juror's surety. It is lost by a vote that is
    /// not the final ruling, and by one that is never opened, in every round that ruled; without a quorum, only by one that is
    /// never opened, and only half of it.
    function commit(bytes32 id, bytes32 commitment) external;

    /// @notice Opens the caller's commitment, after the commit window or when all have committed.
    /// @param verdict 1 honest, 2 guilty
    /// @param evidence digest of the juror's report
    function reveal(bytes32 id, uint8 verdict, bytes32 evidence, bytes32 salt) external;

    /// @notice Counts, as soon as nobody can reveal any more or the time is up; anyone may send.
    function tally(bytes32 id) external;

    /// @notice Appeals the ruling, by the side that lost or a juror whom it outvoted, with twice the last bond: a committee of 2n+1
    /// is drawn anew, without the appellant.
    function appeal(bytes32 id) external;

    /// @notice Carries out the ruling after the appeal window; anyone may send. Bonds of the side that was right go back; bonds
    /// of the other go half to the opponent (to the juror who brought the appeal that prevailed, if one did), half to the jurors
    /// who voted as ruled; they also get the deposits that are lost. In a void dispute those get them who opened their votes.
    function execute(bytes32 id) external;

    /// @notice Adds coins to the surety of an operator that somebody has staked for; by anyone (needs an allowance).
    function lodge(address juror, uint96 amount) external;

    /// @notice Pays of the surety what no vote has set aside, to the operator's owner and by it.
    function takeBack(address juror, uint96 amount) external;

    // ---- views

    function disputes(bytes32 id) external view returns (DisputeView memory);
    function jurorsOf(bytes32 id, uint32 round) external view returns (address[] memory);
    function votes(bytes32 id, uint32 round, address juror) external view returns (Vote memory);
    /// @notice What a juror's next votes can set aside.
    function suretyOf(address juror) external view returns (uint256);
    /// @notice The parameters under which a dispute would be opened now.
    function params() external view returns (IParameters.CourtParams memory);
    /// @notice The parameters under which this dispute is carried out.
    function paramsOf(bytes32 id) external view returns (IParameters.CourtParams memory);
    function voteCommitment(bytes32 id, uint32 round, address juror, uint8 verdict, bytes32 evidence, bytes32 salt)
        external
        pure
        returns (bytes32);
}
