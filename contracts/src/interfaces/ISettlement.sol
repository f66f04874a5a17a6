// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IAgentRegistry} from "./IAgentRegistry.sol";

/// @title Deposits, channels of cumulative vouchers, split pools
/// @notice A payer deposits coins. Its own key, or a session key that it capped, signs *locks* (this much of the deposit is
/// set aside for one host under one set of terms) and *vouchers* (this much of the lock is earned). Both are cumulative: the
/// later one contains the earlier ones, so a row may be landed by anyone, twice, late or never, without harm. What a
/// voucher pays goes to the host and, by the terms' fixed table, to the split pool. Nobody can move anything else.
interface ISettlement {
    /// @notice A payer's deposit. `exitAmount` of `free` may leave at any moment after `exitAt`: a host counts on
    /// `free - exitAmount` only, and has the exit delay to land the locks that it holds.
    struct Account {
        uint96 free;
        uint96 exitAmount;
        uint40 exitAt;
    }

    /// @notice A key that signs for `payer`. `locked` is what it has locked and not got back: spent, or still in channels.
    struct Session {
        address payer;
        uint96 cap;
        uint96 locked;
        uint40 expiry;
    }

    /// @notice Money of one signer for one host, terms and epoch. `closesAt` is 0 until a close is started. `viaSession` says
    /// whose money it is: a session's payer's, or the signer's own. A dead channel never opens again: use the next epoch.
    struct Channel {
        uint96 locked;
        uint96 redeemed;
        uint40 closesAt;
        bool viaSession;
        bool dead;
    }

    /// @notice A host's redeemed balance and where it goes (zero: to the host itself).
    struct Host {
        uint96 balance;
        address payout;
    }

    /// @notice Which party of which table claims: `k` counts from 0. The terms id follows from agent and parties.
    struct Share {
        bytes32 agent;
        IAgentRegistry.Party[] parties;
        uint256 k;
    }

    /// @notice A host's signed advert. The chain only hashes it, so that both sides of a dispute mean the same bytes.
    struct Offer {
        address host;
        bytes32 agent;
        bytes32 terms;
        uint96 priceIn;
        uint96 priceOut;
        uint32 slots;
        uint64 sequence;
        uint64 expires;
        bytes32 detail;
    }

    /// @notice An amount of zero does nothing; say what you mean.
    error ZeroAmount();
    /// @notice The zero address can neither pay nor be paid.
    error ZeroAddress();
    /// @notice At deployment: a delay of more than 90 days keeps money from its owner for too long.
    error DelayTooLong();
    /// @notice More than the account's free balance.
    error OverFree(uint256 free);
    /// @notice The session key did not sign SessionConsent for this payer, or the key is the payer's own.
    error BadConsent(address key);
    /// @notice The payer did not sign SessionGrant(payer,key,cap,expiry,nonce) with its present nonce.
    error BadGrant(address payer);
    /// @notice The key belongs to another payer, for ever.
    error KeyTaken(address key, address payer);
    /// @notice Only the payer behind the key may do this.
    error NotPayer(address caller);
    /// @notice No exit is under way.
    error NoExit();
    /// @notice Not before this second.
    error TooEarly(uint256 until);
    /// @notice Rows are 76 bytes each.
    error RaggedRows(uint256 length);
    /// @notice Nobody agreed these terms in the registry.
    error UnknownTerms(bytes32 terms);
    /// @notice Nobody agreed these terms, or they have sunset: nothing more is locked under them. What is locked stays redeemable.
    error TermsClosed(bytes32 terms);
    /// @notice No row moved anything: all were stale, unfunded or badly signed.
    error NoProgress();
    /// @notice There is no such channel, or it is closing or closed already. A close cannot be started twice.
    error NotClosable();
    /// @notice The channel is not closing.
    error NotClosing();
    /// @notice The table has no party of this index, or the party is not the named payee.
    error WrongParty(uint256 k);
    /// @notice Only the current payout address (the host while there is none) may name the next one.
    error NotPayout(address caller);
    /// @notice There is nothing to pay.
    error NothingDue();

    /// @notice The coins were `from`'s.
    event Deposited(address indexed payer, address indexed from, uint256 amount);
    event Authorized(address indexed payer, address indexed key, uint96 cap, uint40 expiry);
    event Revoked(address indexed payer, address indexed key);
    /// @notice `amount` zero: the exit was called off.
    event ExitRequested(address indexed payer, uint256 amount, uint40 exitAt);
    event Exited(address indexed payer, uint256 amount);
    /// @notice `locked` is the channel's new total.
    event Locked(address indexed signer, address indexed host, bytes32 indexed terms, uint32 epoch, uint256 locked);
    /// @notice One per batch: `rows` vouchers moved something.
    event Redeemed(
        address indexed host, bytes32 indexed terms, uint32 epoch, uint256 hostAmount, uint256 royalty, uint256 rows
    );
    event CloseStarted(
        address indexed signer, address indexed host, bytes32 indexed terms, uint32 epoch, uint40 closesAt
    );
    event Closed(
        address indexed signer,
        address indexed host,
        bytes32 indexed terms,
        uint32 epoch,
        address payer,
        uint256 returned
    );
    event Claimed(bytes32 indexed terms, address indexed payee, uint256 indexed k, uint256 amount);
    event PayoutSet(address indexed host, address indexed payout);
    event Withdrawn(address indexed host, address indexed payout, uint256 amount);

    // ---- the payer's side

    /// @notice Moves `amount` coins of the caller into its own account (needs an allowance).
    function deposit(uint96 amount) external;

    /// @notice Moves `amount` coins of the caller into `payer`'s account. Touches no exit and no close.
    function depositFor(address payer, uint96 amount) external;

    /// @notice As `deposit`, with an ERC-2612 permit. A permit that somebody landed first does no harm.
    function depositWithPermit(uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice As `depositFor(payer)`, with the payer's ERC-3009 authorization to this contract. Anyone may send: the coins go into
    /// the payer's account whoever does.
    function depositWithAuthorization(
        address payer,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Lets `key` lock up to `cap` of the caller's deposit until `expiry` (a second, exclusive).
    /// @param consent the key's signature (65 bytes) of SessionConsent(caller), so that nobody else can claim the key; may be
    /// empty when the key is the caller's already: then only cap and expiry change.
    function authorize(address key, uint96 cap, uint40 expiry, bytes calldata consent) external;

    /// @notice The same with the payer's signature of SessionGrant(payer,key,cap,expiry,nonce) instead of its transaction; anyone may
    /// send. A payer that is a contract (ERC-1271) thereby pays through a session key, whose rows are plain signatures. The
    /// grant names the payer, because wallets of one owner may accept the same signature.
    function authorizeFor(
        address payer,
        address key,
        uint96 cap,
        uint40 expiry,
        bytes calldata consent,
        bytes calldata signature
    ) external;

    /// @notice Ends a session key now: no further lock of it lands. Money locked before stays redeemable by its vouchers. Grants that
    /// the caller signed and nobody has landed are void: they cannot bring the key back.
    function revoke(address key) external;

    /// @notice Asks for `amount` of the free balance to leave after the exit delay. A second request replaces the first and
    /// starts the delay again; zero calls it off. Hosts may lock the money until it is gone.
    function requestExit(uint96 amount) external;

    /// @notice Pays what was asked for, or what locks have left of it, to the caller.
    function finishExit() external;

    /// @notice Starts closing a channel, once. Locks and vouchers still land until it is finished.
    function startClose(address signer, address host, bytes32 terms, uint32 epoch) external;

    /// @notice After the close delay, by anyone: returns the rest to the payer's free balance, gives a session its room back,
    /// and kills the channel.
    function finishClose(address signer, address host, bytes32 terms, uint32 epoch) external;

    // ---- the host's side; anyone may send

    /// @notice Lands locks. A row is uint96 cumulative || r || yParityAndS (EIP-2098) over Lock(host,terms,epoch,cumulative).
    /// Moves free -> locked up to the signed cumulative, or as far as free balance and session cap reach (the same row
    /// lands the rest later). Skips rows that are stale, dead, expired, unfunded or badly signed.
    /// Reverts on ragged rows, on terms that are unknown or have sunset, and when no row moved anything.
    function lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external;

    /// @notice Redeems vouchers: rows as for `lock`, over Voucher(host,terms,epoch,cumulative). Each pays what its cumulative,
    /// capped at the channel's lock, adds to what was redeemed. Skips stale and bad rows.
    /// Reverts on ragged rows, unknown terms, and when no row moved anything.
    function redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external;

    /// @notice Lands locks, then redeems vouchers. Under terms that have sunset the locks are skipped, the vouchers are not.
    /// Reverts when neither moved anything, on ragged rows and on unknown terms.
    function lockAndRedeem(address host, bytes32 terms, uint32 epoch, bytes calldata locks, bytes calldata vouchers)
        external;

    /// @notice Names where `host`'s money goes: by the host while unset, afterwards only by the current payout address, so that
    /// a stolen hot key cannot redirect earnings.
    function setPayout(address host, address payout) external;

    /// @notice Pays `host`'s balance to its payout address.
    function withdraw(address host) external;

    // ---- the parties' side; anyone may send

    /// @notice Pays party `k` of the table what it may claim. Party 0's share of what the pool has ever earned is rounded up,
    /// the others' down; computed on the cumulative total, so no order and no frequency of claims loses or gains a wei, and
    /// at most `parties - 2` wei ever wait in the pool.
    function claim(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k) external;

    /// @notice Claims several shares of one payee with one transfer. Shares with nothing due are skipped.
    function claimMany(address payee, Share[] calldata shares) external;

    // ---- views

    function coin() external view returns (IERC20);
    /// @notice Seconds between asking for an exit and being paid.
    function exitDelay() external view returns (uint40);
    /// @notice Seconds between starting and finishing a close.
    function closeDelay() external view returns (uint40);
    function accounts(address payer) external view returns (uint96 free, uint96 exitAmount, uint40 exitAt);
    function sessions(address key) external view returns (address payer, uint96 cap, uint96 locked, uint40 expiry);
    function channels(bytes32 id)
        external
        view
        returns (uint96 locked, uint96 redeemed, uint40 closesAt, bool viaSession, bool dead);
    function hostBalance(address host) external view returns (uint256);
    /// @notice Where `withdraw` pays.
    function payoutOf(address host) external view returns (address);
    /// @notice What the terms' pool has earned since ever: floor(gross * royaltyBps / 10000).
    function earned(bytes32 terms) external view returns (uint256);
    /// @notice Everything ever redeemed under the terms, host's and pool's part together.
    function gross(bytes32 terms) external view returns (uint256);
    function claimed(bytes32 terms, uint256 k) external view returns (uint256);
    function claimable(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k)
        external
        view
        returns (uint256);
    /// @notice Whose money `signer` signs for: its session's payer, or itself.
    function payerOf(address signer) external view returns (address);
    /// @notice What the payer's next SessionGrant must name.
    function grantNonce(address payer) external view returns (uint64);
    function channelId(address signer, address host, bytes32 terms, uint32 epoch) external pure returns (bytes32);

    // ---- EIP-712 digests under this contract's domain, for wallets and tests to compare with

    function voucherDigest(address host, bytes32 terms, uint32 epoch, uint96 cumulative) external view returns (bytes32);
    function lockDigest(address host, bytes32 terms, uint32 epoch, uint96 cumulative) external view returns (bytes32);
    function sessionConsentDigest(address payer) external view returns (bytes32);
    function sessionGrantDigest(address payer, address key, uint96 cap, uint40 expiry, uint64 nonce)
        external
        view
        returns (bytes32);
    function offerDigest(Offer calldata offer) external view returns (bytes32);
}
