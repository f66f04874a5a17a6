// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Coins} from "./Coins.sol";
import {Committee} from "./Committee.sol";
import {Sheaves} from "./Sheaves.sol";
import {Trees} from "./Trees.sol";
import {IAuditCourt} from "./interfaces/IAuditCourt.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Disputes about receipts
/// @notice Immutable. Holds only bonds of open disputes; every path writes its books before it moves a coin.
contract AuditCourt is EIP712, Committee, IAuditCourt {
    using Coins for IERC20;
    using SafeERC20 for IERC20;

    bytes32 public constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(bytes32 job,uint32 attempt,bytes32 request,bytes32 agent,bytes32 terms,address host,address signer,uint32 epoch,uint32 first,uint32 promptTokens,uint32 outputTokens,bytes32 promptHash,bytes32 commitment,uint96 priceIn,uint96 priceOut,uint96 amount,uint8 finish,uint64 issuedAt,uint8 tier)"
    );
    uint256 private constant WHOLE_BPS = 10_000;

    struct Anchor {
        uint40 anchoredAt;
        uint32 count;
    }

    ISettlement public immutable settlement;

    /// @inheritdoc IAuditCourt
    uint256 public anchors;
    /// @inheritdoc IAuditCourt
    mapping(bytes32 attempt => bool) public convicted;
    /// @inheritdoc IAuditCourt
    mapping(address poster => mapping(bytes32 root => Anchor)) public anchorOf;
    /// @dev What the dispute's receipt is about: every challenger has its own dispute about an attempt, so that no friend of the
    /// host can be first and block the others.
    mapping(bytes32 id => bytes32) private _attempts;

    constructor(IERC20 coin_, IStaking staking_, ISettlement settlement_, IParameters parameters_)
        EIP712("Lading", "1")
        Committee(coin_, staking_, parameters_)
    {
        require(staking_.court() == address(this), BadParams());
        require(address(settlement_.coin()) == address(coin_), BadParams());
        // Otherwise a host could be gone with its stake while its receipts can still be disputed.
        uint256 longest = parameters_.longestDispute() + parameters_.oldestReceipt();
        require(staking_.cooldown() > longest, BadParams());
        settlement = settlement_;
        coin_.forceApprove(address(settlement_), type(uint256).max);
    }

    /// @inheritdoc IAuditCourt
    function anchor(bytes32 root, uint32 count) external returns (uint256 n) {
        n = anchors++;
        Anchor storage a = anchorOf[msg.sender][root];
        if (a.anchoredAt == 0) (a.anchoredAt, a.count) = (uint40(block.timestamp), count);
        emit Anchored(msg.sender, n, root, count);
    }

    /// @inheritdoc IAuditCourt
    function open(Receipt calldata receipt, bytes calldata signature) external returns (bytes32 id) {
        bytes32 digest = receiptDigest(receipt);
        require(Sheaves.fits(signature.length), BadReceipt());
        bytes32 signed = digest;
        if (signature.length != 65) {
            (bytes32 root, uint256 count) = Sheaves.root(digest, signature);
            require(count != 0, BadReceipt());
            signed = sheafDigest(root, uint32(count));
        }
        require(Sheaves.isFrom(receipt.host, signed, signature), BadReceipt());
        return _open(receipt, digest);
    }

    /// @inheritdoc IAuditCourt
    function openAnchored(
        Receipt calldata receipt,
        bytes calldata signature,
        bytes32 root,
        uint256 index,
        bytes32[] calldata path
    ) external returns (bytes32 id) {
        require(Sheaves.fits(signature.length), BadReceipt());
        bytes32 leaf = sha256(bytes.concat(abi.encode(receipt), signature));
        // Nobody has anchored a tree without leaves: the count says whether the host anchored this one.
        require(Trees.leads(leaf, index, anchorOf[receipt.host][root].count, path, root), NotAnchored(root));
        return _open(receipt, receiptDigest(receipt));
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
    function sheafDigest(bytes32 root, uint32 count) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(Sheaves.TYPEHASH, root, count)));
    }

    function _open(Receipt calldata receipt, bytes32 digest) private returns (bytes32 id) {
        id = disputeId(receipt.host, receipt.job, receipt.attempt, msg.sender);
        bytes32 attempt = keccak256(abi.encode(receipt.host, receipt.job, receipt.attempt));
        Dispute storage d = _disputes[id];
        require((d.phase == Phase.None || d.phase == Phase.Void) && !convicted[attempt], AlreadyOpened(id));
        IParameters.CourtParams memory p = _begin(d);
        require(block.timestamp <= uint256(receipt.issuedAt) + p.receiptMaxAge, ReceiptTooOld(receipt.issuedAt));
        require(_slashable(receipt.host) != 0, NothingAtStake(receipt.host));
        _attempts[id] = attempt;
        d.accused = receipt.host;
        d.challenger = msg.sender;
        d.signer = receipt.signer;
        d.payer = settlement.payerOf(receipt.signer);
        d.amount = receipt.amount;
        d.subject = digest;
        _pledge(id, d, GUILTY, p.bond);
        _arm(d, p);
        emit Opened(id, receipt.host, msg.sender, digest, d.drawBlock, receipt);
        staking.openDispute(receipt.host);
        coin.pull(msg.sender, p.bond);
    }

    /// @inheritdoc Committee
    function _accusedOwner(address accused) internal view override returns (address) {
        return _ownerOf(accused);
    }

    /// @inheritdoc Committee
    function _release(Dispute storage d) internal override {
        staking.closeDispute(d.accused);
    }

    /// @inheritdoc Committee
    function _carryOut(bytes32 id, Dispute storage d) internal override returns (uint256 reward) {
        if (d.verdict == GUILTY && !convicted[_attempts[id]]) reward = _slash(id, d);
        else emit Executed(id, d.verdict, 0, 0, 0, 0, 0);
        _release(d);
    }

    /// @dev Takes and distributes the slash except for the jurors' reward, which it returns.
    function _slash(bytes32 id, Dispute storage d) private returns (uint256 reward) {
        IParameters.CourtParams memory p = _paramsOf(d);
        convicted[_attempts[id]] = true;
        uint256 slashed = _slashable(d.accused) * p.slashBps / WHOLE_BPS;
        reward = slashed * p.rewardBps / WHOLE_BPS;
        uint256 fee = slashed * p.finderBps / WHOLE_BPS;
        uint256 refund = slashed - reward - fee - slashed * p.burnBps / WHOLE_BPS;
        // A receipt may name any signer: one that nobody can be paid for must not stop the slash.
        if (d.payer == address(0)) refund = 0;
        else if (refund > d.amount) refund = d.amount;
        uint256 burnt = slashed - reward - fee - refund;
        emit Executed(id, GUILTY, slashed, burnt, refund, fee, reward);
        staking.slash(d.accused, slashed, burnt);
        staking.jail(d.accused, uint40(block.timestamp) + p.jailTime);
        _refund(d.payer, refund);
        _pay(id, d.challenger, fee);
    }

    function _slashable(address host) private view returns (uint256) {
        return staking.slashable(host);
    }

    /// @dev To the consumer's deposit; to itself when the deposit cannot take it, because nothing may stop a slash.
    function _refund(address payer, uint256 amount) private {
        if (amount == 0) return;
        try settlement.depositFor(payer, uint96(amount)) {}
        catch {
            _send(payer, amount);
        }
    }
}
