// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Disputes about receipts
/// @notice A dispute opens on nothing but a receipt that the host signed for this contract on this chain. A committee drawn by
/// later randomness re-runs the job and votes by commit and reveal. A quorum rules; the loser may appeal to a larger
/// committee; only after the appeal window does a ruling take effect. Silence never convicts: a round without a quorum
/// gives the bonds back, and nothing that a host fails to do on chain counts against it.
interface IAuditCourt {
    /// @notice A host's signed record of one attempt. finish: 0 running, 1 stop, 2 length, 3 cancelled, 4 failed.
    struct Receipt {
        bytes32 job;
        uint32 attempt;
        bytes32 request;
        bytes32 agent;
        bytes32 terms;
        address host;
        address signer;
        uint32 epoch;
        uint32 first;
        uint32 promptTokens;
        uint32 outputTokens;
        bytes32 promptHash;
        bytes32 commitment;
        uint96 priceIn;
        uint96 priceOut;
        uint96 amount;
        uint8 finish;
        uint64 issuedAt;
    }

    /// @notice Fixed at deployment. A slash takes `slashBps` of what the host has staked. Of the slash, `rewardBps` go to the
    /// jurors of the majority, `finderBps` to the challenger, at least `burnBps` are burnt, the consumer gets its payment
    /// back from what is left, and the rest is burnt too. Windows, ages and jail in seconds.
    struct Params {
        uint96 bond;
        uint16 slashBps;
        uint16 burnBps;
        uint16 rewardBps;
        uint16 finderBps;
        uint8 committeeSize;
        uint8 quorum;
        uint16 drawDelayBlocks;
        uint32 commitWindow;
        uint32 revealWindow;
        uint32 appealWindow;
        uint32 receiptMaxAge;
        uint32 jailTime;
    }

    /// @notice None: never opened. Drawing: waits for the block whose hash draws the committee. Voting: commits, then reveals.
    /// Ruled: waits for an appeal. Closed: executed, for ever. Void: no quorum, bonds are back; may be opened again.
    enum Phase {
        None,
        Drawing,
        Voting,
        Ruled,
        Closed,
        Void
    }

    /// @notice What `disputes` shows: the dispute and its current round. Deadlines are seconds, exclusive; zero when not set.
    struct DisputeView {
        Phase phase;
        uint8 verdict;
        uint8 appeals;
        uint32 round;
        address host;
        address challenger;
        address signer;
        uint96 amount;
        bytes32 receiptDigest;
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

    /// @notice The parameters contradict each other, or the other contracts do not fit.
    error BadParams();
    /// @notice The receipt is not signed by the host that it names, for this contract and chain.
    error BadReceipt();
    /// @notice The receipt is older than a dispute may be.
    error ReceiptTooOld(uint256 issuedAt);
    /// @notice The host has nothing at stake.
    error NothingAtStake(address host);
    /// @notice The attempt is in dispute already, or was ruled on: once is enough.
    error AlreadyOpened(bytes32 id);
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
    /// @notice The reveal does not open the commitment, or the verdict is neither 1 (honest) nor 2 (guilty).
    error BadReveal();
    /// @notice Only the side that lost may appeal (for a host: the operator or its owner), and at most twice in all.
    error MayNotAppeal(address caller);

    event Anchored(address indexed poster, uint256 indexed n, bytes32 root, uint32 count);
    event Opened(
        bytes32 indexed id,
        address indexed host,
        address indexed challenger,
        bytes32 receiptDigest,
        uint256 drawBlock,
        Receipt receipt
    );
    /// @notice The block hash was out of reach: a later block draws.
    event Rearmed(bytes32 indexed id, uint256 drawBlock);
    event Drawn(bytes32 indexed id, uint32 round, address[] jurors, uint40 commitBy, uint40 revealBy);
    event Committed(bytes32 indexed id, uint32 round, address indexed juror);
    event Revealed(bytes32 indexed id, uint32 round, address indexed juror, uint8 verdict, bytes32 evidence);
    event Ruled(bytes32 indexed id, uint32 round, uint8 verdict, uint40 appealBy);
    /// @notice An appeal found no quorum: the ruling before it stands and may be executed at once.
    event Stands(bytes32 indexed id, uint32 round, uint8 verdict);
    event Appealed(bytes32 indexed id, uint32 round, address indexed appellant, uint256 bond, uint256 drawBlock);
    /// @notice `burnt`, `refunded`, `fee` (to the challenger) and `reward` (to jurors) add up to `slashed`.
    event Executed(
        bytes32 indexed id, uint8 verdict, uint256 slashed, uint256 burnt, uint256 refunded, uint256 fee, uint256 reward
    );
    /// @notice Paid out of bonds and slash: to a juror's owner, the host's owner, the challenger or an appellant.
    event Paid(bytes32 indexed id, address indexed to, uint256 amount);
    event Voided(bytes32 indexed id, uint32 round);

    /// @notice Puts the Merkle root of `count` receipt digests on record, before the randomness that picks what to audit.
    /// @return n counts all anchors, from 0.
    function anchor(bytes32 root, uint32 count) external returns (uint256 n);

    /// @notice Opens a dispute about a receipt, with the bond (needs an allowance).
    /// @param signature the host's, 65 bytes, over the receipt's digest
    function open(Receipt calldata receipt, bytes calldata signature) external returns (bytes32 id);

    /// @notice Draws the committee from the hash of the draw block; anyone may send, the outcome is the same. Picks among the
    /// operators that were active when the dispute (or appeal) was armed, except host, challenger, consumer and whoever
    /// shares an owner with them. Fewer eligible than a quorum: void, or on appeal the ruling stands.
    function draw(bytes32 id) external;

    /// @notice A juror's sealed vote: keccak256(abi.encode(id, round, juror, verdict, evidence, salt)). Binds the juror, so a
    /// copied commitment can never be revealed. Once.
    function commit(bytes32 id, bytes32 commitment) external;

    /// @notice Opens the caller's commitment, after the commit window or when all have committed.
    /// @param verdict 1 honest, 2 guilty
    /// @param evidence digest of the juror's report
    function reveal(bytes32 id, uint8 verdict, bytes32 evidence, bytes32 salt) external;

    /// @notice Counts, as soon as nobody can reveal any more or the time is up; anyone may send.
    function tally(bytes32 id) external;

    /// @notice Appeals the ruling, by the side that lost, with twice the last bond: a committee of 2n+1 is drawn anew.
    function appeal(bytes32 id) external;

    /// @notice Carries out the ruling after the appeal window; anyone may send. Guilty: slash, burn, refund, jail. Bonds of the
    /// side that was right go back; bonds of the other go half to the opponent, half to the jurors who voted as ruled.
    function execute(bytes32 id) external;

    // ---- views

    function disputes(bytes32 id) external view returns (DisputeView memory);
    function jurorsOf(bytes32 id, uint32 round) external view returns (address[] memory);
    function votes(bytes32 id, uint32 round, address juror) external view returns (Vote memory);
    function params() external view returns (Params memory);
    function disputeId(address host, bytes32 job, uint32 attempt, address challenger) external pure returns (bytes32);
    function convicted(bytes32 attempt) external view returns (bool);
    function receiptDigest(Receipt calldata receipt) external view returns (bytes32);
    function voteCommitment(bytes32 id, uint32 round, address juror, uint8 verdict, bytes32 evidence, bytes32 salt)
        external
        pure
        returns (bytes32);
}
