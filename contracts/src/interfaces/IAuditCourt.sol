// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommittee} from "./ICommittee.sol";

/// @title Disputes about receipts
/// @notice A dispute opens on nothing but a receipt that the host signed for this contract on this chain, or that lies under a
/// root which the host itself anchored. A committee re-runs the job and votes; a quorum rules; the loser may appeal; only after
/// the appeal window does a ruling take effect. Nothing that a host fails to do on chain counts against it.
interface IAuditCourt is ICommittee {
    /// @notice A host's signed record of one attempt. finish: 0 running, 1 stop, 2 length, 3 cancelled, 4 failed.
    /// tier, of isolation: 0 none, 1 W (WebAssembly), 2 P (process), 3 C (container), 4 G (gVisor), 5 V (virtual machine).
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
        uint8 tier;
    }

    /// @notice The receipt is not signed by the host that it names, for this contract and chain.
    error BadReceipt();
    /// @notice The host did not anchor this root, or the path does not lead from the receipt to it.
    error NotAnchored(bytes32 root);
    /// @notice The receipt is older than a dispute may be.
    error ReceiptTooOld(uint256 issuedAt);
    /// @notice The host has nothing at stake.
    error NothingAtStake(address host);
    /// @notice The attempt is in dispute already, or was ruled on: once is enough.
    error AlreadyOpened(bytes32 id);

    event Anchored(address indexed poster, uint256 indexed n, bytes32 root, uint32 count);
    event Opened(
        bytes32 indexed id,
        address indexed host,
        address indexed challenger,
        bytes32 receiptDigest,
        uint256 drawBlock,
        Receipt receipt
    );
    /// @notice `burnt`, `refunded`, `fee` (to the challenger) and `reward` (to jurors) add up to `slashed`.
    event Executed(
        bytes32 indexed id, uint8 verdict, uint256 slashed, uint256 burnt, uint256 refunded, uint256 fee, uint256 reward
    );

    /// @notice Puts the Merkle root of `count` receipts on record, before the randomness that picks what to audit. A leaf is the
    /// sha256 of the packed receipt (its words, then its signature), the tree that of RFC 6962: sha256(0x01, left,
    /// right), an odd node carried up.
    /// @return n counts all anchors, from 0.
    function anchor(bytes32 root, uint32 count) external returns (uint256 n);

    /// @notice Opens a dispute about a receipt, with the bond (needs an allowance).
    /// @param signature the host's: 65 bytes over the receipt's digest; or, where it signed 2 to 1,024 receipts at once, 65 bytes
    /// over `sheafDigest`, uint16 index, uint16 count, and the sibling hashes from the receipt's digest up. The tree is the one
    /// of `anchor`; only the leaves differ.
    function open(Receipt calldata receipt, bytes calldata signature) external returns (bytes32 id);

    /// @notice Opens a dispute about a receipt under a root that its host anchored: the root is the host's word for it, so the
    /// signature in the leaf need not be good.
    /// @param index the leaf's, counted from 0
    /// @param path the sibling hashes from the leaf up, without those that an odd node does not have
    function openAnchored(
        Receipt calldata receipt,
        bytes calldata signature,
        bytes32 root,
        uint256 index,
        bytes32[] calldata path
    ) external returns (bytes32 id);

    // ---- views

    function disputeId(address host, bytes32 job, uint32 attempt, address challenger) external pure returns (bytes32);
    /// @notice When `poster` anchored `root`, and how many receipts it holds; zeroes if it never did.
    function anchorOf(address poster, bytes32 root) external view returns (uint40 anchoredAt, uint32 count);
    /// @notice How many roots were anchored.
    function anchors() external view returns (uint256);
    /// @notice Attempts for which their host was slashed: it is, once, whoever else proves it.
    function convicted(bytes32 attempt) external view returns (bool);
    function receiptDigest(Receipt calldata receipt) external view returns (bytes32);
    /// @notice What a host signs for `count` receipts with digests under this root.
    function sheafDigest(bytes32 root, uint32 count) external view returns (bytes32);
}
