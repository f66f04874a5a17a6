// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Lottery} from "./Lottery.sol";
import {IAICoin} from "./interfaces/IAICoin.sol";
import {IAuditCourt} from "./interfaces/IAuditCourt.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Disputes about receipts
/// @notice Immutable. Holds only bonds of open disputes; every path writes its books before it moves a coin.
contract AuditCourt is EIP712, IAuditCourt {
    using SafeERC20 for IAICoin;

    bytes32 public constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 job,uint32 attempt,bytes32 request,bytes32 agent,bytes32 terms,address host,address signer,uint32 epoch,uint32 first,uint32 promptTokens,uint32 outputTokens,bytes32 promptHash,bytes32 commitment,uint96 priceIn,uint96 priceOut,uint96 amount,uint8 finish,uint64 issuedAt)"
    );
    uint8 public constant HONEST = 1;
    uint8 public constant GUILTY = 2;
    uint8 public constant MAX_APPEALS = 2;
    uint256 private constant WHOLE_BPS = 10_000;
    uint256 private constant MAX_COMMITTEE = 7;

    /// @dev `firstRound` is the first round since the last opening; rounds count on when a void dispute is opened again, so
    /// that no vote of an earlier opening can be taken for a new one. `attempt` names what the receipt is about: every
    /// challenger has its own dispute about an attempt, so that no friend of the host can be first and block the others.
    struct Dispute {
        address host;
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
        uint40 armedAt;
        uint32 pool;
        bytes32 receiptDigest;
        bytes32 attempt;
    }

    /// @dev Whoever armed the round put `bond` on `side`.
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
        address[] jurors;
    }

    IAICoin public immutable coin;
    IStaking public immutable staking;
    ISettlement public immutable settlement;

    /// @notice How many roots were anchored.
    uint256 public anchors;
    /// @notice Attempts for which their host was slashed: it is, once, whoever else proves it.
    mapping(bytes32 attempt => bool) public convicted;
    Params private _params;
    mapping(bytes32 id => Dispute) private _disputes;
    mapping(bytes32 id => mapping(uint32 round => Round)) private _rounds;
    mapping(bytes32 id => mapping(uint32 round => mapping(address juror => Vote))) private _votes;

    constructor(IAICoin coin_, IStaking staking_, ISettlement settlement_, Params memory p) EIP712("Lading", "1") {
        require(
            p.bond != 0 && p.bond <= type(uint96).max >> MAX_APPEALS && p.slashBps != 0 && p.slashBps <= WHOLE_BPS,
            BadParams()
        );
        require(uint256(p.burnBps) + p.rewardBps + p.finderBps <= WHOLE_BPS && p.burnBps != 0, BadParams());
        require(p.committeeSize <= MAX_COMMITTEE && p.quorum <= p.committeeSize, BadParams());
        require(p.quorum >= 2 && p.quorum > p.committeeSize / 2, BadParams());
        require(p.drawDelayBlocks != 0 && p.drawDelayBlocks <= 200, BadParams());
        require(p.commitWindow != 0 && p.revealWindow != 0 && p.appealWindow != 0, BadParams());
        require(staking_.court() == address(this) && address(staking_.coin()) == address(coin_), BadParams());
        require(address(settlement_.coin()) == address(coin_), BadParams());
        // Otherwise a host could be gone with its stake before its receipts are too old to dispute.
        require(p.receiptMaxAge != 0 && staking_.cooldown() >= p.receiptMaxAge, BadParams());
        coin = coin_;
        staking = staking_;
        settlement = settlement_;
        _params = p;
        coin_.forceApprove(address(settlement_), type(uint256).max);
    }

    /// @inheritdoc IAuditCourt
    function anchor(bytes32 root, uint32 count) external returns (uint256 n) {
        n = anchors++;
        emit Anchored(msg.sender, n, root, count);
    }

    /// @inheritdoc IAuditCourt
    function open(Receipt calldata receipt, bytes calldata signature) external returns (bytes32 id) {
        bytes32 digest = receiptDigest(receipt);
        require(ECDSA.recoverCalldata(digest, signature) == receipt.host, BadReceipt());
        uint256 lastSecond = uint256(receipt.issuedAt) + _params.receiptMaxAge;
        require(block.timestamp <= lastSecond, ReceiptTooOld(receipt.issuedAt));
        require(staking.slashable(receipt.host) != 0, NothingAtStake(receipt.host));
        id = disputeId(receipt.host, receipt.job, receipt.attempt, msg.sender);
        Dispute storage d = _disputes[id];
        bytes32 attempt = keccak256(abi.encode(receipt.host, receipt.job, receipt.attempt));
        require((d.phase == Phase.None || d.phase == Phase.Void) && !convicted[attempt], AlreadyOpened(id));
        d.attempt = attempt;
        d.host = receipt.host;
        d.challenger = msg.sender;
        d.signer = receipt.signer;
        d.amount = receipt.amount;
        d.receiptDigest = digest;
        d.verdict = 0;
        d.firstRound = d.round + 1;
        uint96 bond = _params.bond;
        _arm(id, d, GUILTY, bond);
        emit Opened(id, receipt.host, msg.sender, digest, d.drawBlock, receipt);
        staking.openDispute(receipt.host);
        coin.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @inheritdoc IAuditCourt
    function draw(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Drawing, WrongPhase(d.phase));
        require(block.number > d.drawBlock, TooEarlyBlock(uint256(d.drawBlock) + 1));
        bytes32 entropy = blockhash(d.drawBlock);
        if (entropy == 0) {
            _setDrawBlock(d);
            emit Rearmed(id, d.drawBlock);
            return;
        }
        uint256 size = _params.committeeSize;
        for (uint256 i = 0; i < d.appeals; ++i) {
            size = 2 * size + 1;
        }
        bytes32 seed = keccak256(abi.encode(entropy, id, d.round));
        address[] memory jurors = Lottery.pick(staking, seed, size, d.pool, _exclusions(d));
        if (jurors.length < _params.quorum) {
            _noQuorum(id, d);
            return;
        }
        Round storage r = _rounds[id][d.round];
        d.phase = Phase.Voting;
        r.jurors = jurors;
        r.commitBy = uint40(block.timestamp) + _params.commitWindow;
        r.revealBy = r.commitBy + _params.revealWindow;
        for (uint256 i = 0; i < jurors.length; ++i) {
            _votes[id][d.round][jurors[i]].seated = true;
        }
        emit Drawn(id, d.round, jurors, r.commitBy, r.revealBy);
    }

    /// @inheritdoc IAuditCourt
    function commit(bytes32 id, bytes32 commitment) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Voting, WrongPhase(d.phase));
        Round storage r = _rounds[id][d.round];
        require(block.timestamp < r.commitBy, TooLate(r.commitBy));
        Vote storage vote = _votes[id][d.round][msg.sender];
        require(vote.seated && vote.commitment == 0 && commitment != 0, NoSeat(msg.sender));
        vote.commitment = commitment;
        ++r.committed;
        emit Committed(id, d.round, msg.sender);
    }

    /// @inheritdoc IAuditCourt
    function reveal(bytes32 id, uint8 verdict, bytes32 evidence, bytes32 salt) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Voting, WrongPhase(d.phase));
        Round storage r = _rounds[id][d.round];
        require(block.timestamp >= r.commitBy || r.committed == r.jurors.length, TooEarly(r.commitBy));
        require(block.timestamp < r.revealBy, TooLate(r.revealBy));
        Vote storage vote = _votes[id][d.round][msg.sender];
        require(vote.commitment != 0 && vote.verdict == 0, NoSeat(msg.sender));
        require(verdict == HONEST || verdict == GUILTY, BadReveal());
        require(vote.commitment == voteCommitment(id, d.round, msg.sender, verdict, evidence, salt), BadReveal());
        vote.verdict = verdict;
        ++r.revealed;
        if (verdict == GUILTY) ++r.guilty;
        else ++r.honest;
        emit Revealed(id, d.round, msg.sender, verdict, evidence);
    }

    /// @inheritdoc IAuditCourt
    function tally(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Voting, WrongPhase(d.phase));
        Round storage r = _rounds[id][d.round];
        uint256 seats = r.jurors.length;
        bool committing = block.timestamp < r.commitBy && r.committed < seats;
        bool revealing = block.timestamp < r.revealBy && r.revealed < r.committed;
        require(!committing && !revealing, TooEarly(committing ? r.commitBy : r.revealBy));
        uint256 quorum = seats / 2 + 1;
        if (quorum < _params.quorum) quorum = _params.quorum;
        if (r.guilty < quorum && r.honest < quorum) {
            _noQuorum(id, d);
            return;
        }
        uint8 verdict = r.guilty >= quorum ? GUILTY : HONEST;
        r.ruled = true;
        d.verdict = verdict;
        d.phase = Phase.Ruled;
        d.appealBy = uint40(block.timestamp) + _params.appealWindow;
        emit Ruled(id, d.round, verdict, d.appealBy);
    }

    /// @inheritdoc IAuditCourt
    function appeal(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Ruled, WrongPhase(d.phase));
        require(block.timestamp < d.appealBy, TooLate(d.appealBy));
        bool guilty = d.verdict == GUILTY;
        bool lost = guilty ? msg.sender == d.host || msg.sender == staking.ownerOf(d.host) : msg.sender == d.challenger;
        require(lost && d.appeals < MAX_APPEALS, MayNotAppeal(msg.sender));
        ++d.appeals;
        uint96 bond = _params.bond << d.appeals;
        _arm(id, d, guilty ? HONEST : GUILTY, bond);
        emit Appealed(id, d.round, msg.sender, bond, d.drawBlock);
        coin.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @inheritdoc IAuditCourt
    function execute(bytes32 id) external {
        Dispute storage d = _disputes[id];
        require(d.phase == Phase.Ruled, WrongPhase(d.phase));
        require(block.timestamp >= d.appealBy, TooEarly(d.appealBy));
        d.phase = Phase.Closed;
        uint256 reward = 0;
        if (d.verdict == GUILTY && !convicted[d.attempt]) reward = _slash(id, d);
        else emit Executed(id, d.verdict, 0, 0, 0, 0, 0);
        staking.closeDispute(d.host);
        _settleBonds(id, d, reward);
    }

    /// @inheritdoc IAuditCourt
    function disputes(bytes32 id) external view returns (DisputeView memory) {
        Dispute storage d = _disputes[id];
        Round storage r = _rounds[id][d.round];
        return DisputeView({
            phase: d.phase,
            verdict: d.verdict,
            appeals: d.appeals,
            round: d.round,
            host: d.host,
            challenger: d.challenger,
            signer: d.signer,
            amount: d.amount,
            receiptDigest: d.receiptDigest,
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

    /// @inheritdoc IAuditCourt
    function jurorsOf(bytes32 id, uint32 round) external view returns (address[] memory) {
        return _rounds[id][round].jurors;
    }

    /// @inheritdoc IAuditCourt
    function votes(bytes32 id, uint32 round, address juror) external view returns (Vote memory) {
        return _votes[id][round][juror];
    }

    /// @inheritdoc IAuditCourt
    function params() external view returns (Params memory) {
        return _params;
    }

    /// @inheritdoc IAuditCourt
    function disputeId(address host, bytes32 job, uint32 attempt, address challenger) public pure returns (bytes32) {
        return keccak256(abi.encode(host, job, attempt, challenger));
    }

    /// @inheritdoc IAuditCourt
    function receiptDigest(Receipt calldata receipt) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RECEIPT_TYPEHASH, receipt)));
    }

    /// @inheritdoc IAuditCourt
    function voteCommitment(bytes32 id, uint32 round, address juror, uint8 verdict, bytes32 evidence, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(id, round, juror, verdict, evidence, salt));
    }

    function _arm(bytes32 id, Dispute storage d, uint8 side, uint96 bond) private {
        d.phase = Phase.Drawing;
        d.appealBy = 0;
        ++d.round;
        _setDrawBlock(d);
        Round storage r = _rounds[id][d.round];
        r.backer = msg.sender;
        r.bond = bond;
        r.side = side;
    }

    /// @dev Fixes who can be drawn before the randomness is known: operators that join later do not change the lottery.
    function _setDrawBlock(Dispute storage d) private {
        d.drawBlock = uint48(block.number) + _params.drawDelayBlocks;
        d.armedAt = uint40(block.timestamp);
        d.pool = uint32(staking.operatorCount());
    }

    function _exclusions(Dispute storage d) private view returns (Lottery.Exclusions memory) {
        return Lottery.Exclusions({
            host: d.host,
            hostOwner: staking.ownerOf(d.host),
            challenger: d.challenger,
            challengerOwner: staking.ownerOf(d.challenger),
            signer: d.signer,
            payer: settlement.payerOf(d.signer),
            joinedAfter: d.armedAt
        });
    }

    /// @dev Without a quorum nobody is convicted: the first round is void; an appeal leaves the ruling before it in force.
    function _noQuorum(bytes32 id, Dispute storage d) private {
        if (d.round != d.firstRound) {
            d.phase = Phase.Ruled;
            d.appealBy = uint40(block.timestamp);
            emit Stands(id, d.round, d.verdict);
            return;
        }
        d.phase = Phase.Void;
        emit Voided(id, d.round);
        staking.closeDispute(d.host);
        Round storage r = _rounds[id][d.round];
        _pay(id, r.backer, r.bond);
    }

    /// @dev Takes and distributes the slash except for the jurors' reward, which it returns.
    function _slash(bytes32 id, Dispute storage d) private returns (uint256 reward) {
        Params memory p = _params;
        convicted[d.attempt] = true;
        uint256 slashed = staking.slashable(d.host) * p.slashBps / WHOLE_BPS;
        reward = slashed * p.rewardBps / WHOLE_BPS;
        uint256 fee = slashed * p.finderBps / WHOLE_BPS;
        uint256 refund = slashed - reward - fee - slashed * p.burnBps / WHOLE_BPS;
        address payer = settlement.payerOf(d.signer);
        // A receipt may name any signer: one that nobody can be paid for must not stop the slash.
        if (payer == address(0)) refund = 0;
        else if (refund > d.amount) refund = d.amount;
        uint256 burnt = slashed - reward - fee - refund;
        emit Executed(id, GUILTY, slashed, burnt, refund, fee, reward);
        staking.slash(d.host, slashed, burnt);
        staking.jail(d.host, uint40(block.timestamp) + _params.jailTime);
        if (refund != 0) settlement.depositFor(payer, uint96(refund));
        _pay(id, d.challenger, fee);
    }

    /// @dev Bonds on the right side, and those of rounds that found no quorum, go back. The others go half to the opponent,
    /// half to the jurors who voted as ruled, in whatever round.
    function _settleBonds(bytes32 id, Dispute storage d, uint256 pot) private {
        address opponent = d.verdict == GUILTY ? d.challenger : staking.ownerOf(d.host);
        uint256 toOpponent = 0;
        uint256 winners = 0;
        for (uint32 n = d.firstRound; n <= d.round; ++n) {
            Round storage r = _rounds[id][n];
            winners += d.verdict == GUILTY ? r.guilty : r.honest;
            if (r.ruled && r.side != d.verdict) {
                toOpponent += r.bond / 2;
                pot += r.bond - r.bond / 2;
            } else {
                _pay(id, r.backer, r.bond);
            }
        }
        _pay(id, opponent, toOpponent + pot % winners);
        uint256 each = pot / winners;
        for (uint32 n = d.firstRound; n <= d.round; ++n) {
            address[] storage jurors = _rounds[id][n].jurors;
            for (uint256 i = 0; i < jurors.length; ++i) {
                address juror = jurors[i];
                if (_votes[id][n][juror].verdict == d.verdict) _pay(id, staking.ownerOf(juror), each);
            }
        }
    }

    function _pay(bytes32 id, address to, uint256 amount) private {
        if (amount == 0) return;
        emit Paid(id, to, amount);
        coin.safeTransfer(to, amount);
    }
}
