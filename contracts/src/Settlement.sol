// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC3009} from "@openzeppelin/contracts/interfaces/draft-IERC3009.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Coins} from "./Coins.sol";
import {IAgentRegistry} from "./interfaces/IAgentRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Rows} from "./Rows.sol";

/// @title Deposits, channels of cumulative vouchers, split pools
/// @notice Immutable: no owner, no pause, no proxy. Every path writes its books before it moves a coin. At all times
/// coin.balanceOf(this) >= sum(free) + sum(locked - redeemed) + sum(earned - claimed) + sum(hostBalance), with equality
/// unless somebody sent coins here outside the verbs.
contract Settlement is EIP712, ISettlement {
    using SafeERC20 for IERC20;

    bytes32 public constant VOUCHER_TYPEHASH =
        keccak256("Voucher(address host,bytes32 terms,uint32 epoch,uint96 cumulative)");
    bytes32 public constant LOCK_TYPEHASH =
        keccak256("Lock(address host,bytes32 terms,uint32 epoch,uint96 cumulative)");
    bytes32 public constant SESSION_CONSENT_TYPEHASH = keccak256("SessionConsent(address payer)");
    bytes32 public constant SESSION_GRANT_TYPEHASH =
        keccak256("SessionGrant(address payer,address key,uint96 cap,uint40 expiry,uint64 nonce)");
    bytes32 public constant OFFER_TYPEHASH = keccak256(
        "Offer(address host,bytes32 agent,bytes32 terms,uint96 priceIn,uint96 priceOut,uint32 slots,uint64 sequence,uint64 expires,bytes32 detail)"
    );
    uint256 private constant WHOLE_BPS = 10_000;
    uint256 private constant MAX_DELAY = 90 days;

    /// @dev `royaltyBps` is the registry's, kept here at the first redemption: terms never change.
    struct Pool {
        uint128 gross;
        uint16 royaltyBps;
        // A table that has earned anything has no more parties than this.
        uint256[16] claimed;
    }

    IERC20 public immutable coin;
    IAgentRegistry public immutable registry;
    uint40 public immutable exitDelay;
    uint40 public immutable closeDelay;

    /// @dev What an address owns, and whose key it is: together, because a lock looks for both and one place costs one hash.
    struct Book {
        Account account;
        Session session;
    }

    /// @dev `channels` follows right after: Rows finds it by that, and by the order in which structs hold their words.
    mapping(address => Book) private _books;
    mapping(bytes32 id => Channel) public channels;
    mapping(address payer => uint64) public grantNonce;
    mapping(address host => Host) private _hosts;
    mapping(bytes32 terms => Pool) private _pools;

    constructor(IERC20 coin_, IAgentRegistry registry_, uint40 exitDelay_, uint40 closeDelay_) EIP712("Lading", "1") {
        require(address(coin_) != address(0) && address(registry_) != address(0), ZeroAddress());
        require(exitDelay_ <= MAX_DELAY && closeDelay_ <= MAX_DELAY, DelayTooLong());
        coin = coin_;
        registry = registry_;
        exitDelay = exitDelay_;
        closeDelay = closeDelay_;
    }

    /// @inheritdoc ISettlement
    function deposit(uint96 amount) external {
        _deposit(msg.sender, amount);
    }

    /// @inheritdoc ISettlement
    function depositFor(address payer, uint96 amount) external {
        _deposit(payer, amount);
    }

    /// @inheritdoc ISettlement
    function depositWithPermit(uint96 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external {
        try IERC20Permit(address(coin)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(msg.sender, amount);
    }

    /// @inheritdoc ISettlement
    function depositWithAuthorization(
        address payer,
        uint96 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        _credit(payer, payer, amount);
        uint256 before = Coins.startPull(coin);
        IERC3009(address(coin))
            .receiveWithAuthorization(payer, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        Coins.finishPull(coin, before, amount);
    }

    /// @inheritdoc ISettlement
    function authorize(address key, uint96 cap, uint40 expiry, bytes calldata consent) external {
        _authorize(msg.sender, key, cap, expiry, consent);
    }

    /// @inheritdoc ISettlement
    function authorizeFor(
        address payer,
        address key,
        uint96 cap,
        uint40 expiry,
        bytes calldata consent,
        bytes calldata signature
    ) external {
        bytes32 digest = sessionGrantDigest(payer, key, cap, expiry, grantNonce[payer]++);
        require(SignatureChecker.isValidSignatureNowCalldata(payer, digest, signature), BadGrant(payer));
        _authorize(payer, key, cap, expiry, consent);
    }

    /// @inheritdoc ISettlement
    function revoke(address key) external {
        require(_books[key].session.payer == msg.sender, NotPayer(msg.sender));
        _books[key].session.expiry = 0;
        ++grantNonce[msg.sender];
        emit Revoked(msg.sender, key);
    }

    /// @inheritdoc ISettlement
    function requestExit(uint96 amount) external {
        Account storage account = _books[msg.sender].account;
        require(amount <= account.free, OverFree(account.free));
        uint40 exitAt = amount == 0 ? 0 : uint40(block.timestamp) + exitDelay;
        account.exitAmount = amount;
        account.exitAt = exitAt;
        emit ExitRequested(msg.sender, amount, exitAt);
    }

    /// @inheritdoc ISettlement
    function finishExit() external {
        Account storage account = _books[msg.sender].account;
        uint96 amount = account.exitAmount;
        require(amount != 0, NoExit());
        require(block.timestamp >= account.exitAt, TooEarly(account.exitAt));
        if (amount > account.free) amount = account.free;
        account.free -= amount;
        account.exitAmount = 0;
        account.exitAt = 0;
        emit Exited(msg.sender, amount);
        if (amount != 0) coin.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc ISettlement
    function lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external {
        require(registry.isOpen(terms), TermsClosed(terms));
        require(_lock(host, terms, epoch, rows) != 0, NoProgress());
    }

    /// @inheritdoc ISettlement
    function redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external {
        require(_redeem(host, terms, epoch, rows) != 0, NoProgress());
    }

    /// @inheritdoc ISettlement
    function lockAndRedeem(address host, bytes32 terms, uint32 epoch, bytes calldata locks, bytes calldata vouchers)
        external
    {
        Rows.check(locks);
        uint256 moved = registry.isOpen(terms) ? _lock(host, terms, epoch, locks) : 0;
        moved += _redeem(host, terms, epoch, vouchers);
        require(moved != 0, NoProgress());
    }

    /// @inheritdoc ISettlement
    function startClose(address signer, address host, bytes32 terms, uint32 epoch) external {
        Channel storage channel = channels[channelId(signer, host, terms, epoch)];
        require(channel.locked != 0 && channel.closesAt == 0, NotClosable());
        address payer = channel.viaSession ? _books[signer].session.payer : signer;
        require(payer == msg.sender, NotPayer(msg.sender));
        uint40 closesAt = uint40(block.timestamp) + closeDelay;
        channel.closesAt = closesAt;
        emit CloseStarted(signer, host, terms, epoch, closesAt);
    }

    /// @inheritdoc ISettlement
    function finishClose(address signer, address host, bytes32 terms, uint32 epoch) external {
        Channel storage channel = channels[channelId(signer, host, terms, epoch)];
        require(channel.closesAt != 0 && !channel.dead, NotClosing());
        require(block.timestamp >= channel.closesAt, TooEarly(channel.closesAt));
        uint96 rest = channel.locked - channel.redeemed;
        channel.locked = channel.redeemed;
        channel.dead = true;
        address payer = signer;
        if (channel.viaSession) {
            payer = _books[signer].session.payer;
            _books[signer].session.locked -= rest;
        }
        _books[payer].account.free += rest;
        emit Closed(signer, host, terms, epoch, payer, rest);
    }

    /// @inheritdoc ISettlement
    function setPayout(address host, address payout) external {
        require(payout != address(0), ZeroAddress());
        require(payoutOf(host) == msg.sender, NotPayout(msg.sender));
        _hosts[host].payout = payout;
        emit PayoutSet(host, payout);
    }

    /// @inheritdoc ISettlement
    function withdraw(address host) external {
        Host storage due = _hosts[host];
        uint256 word;
        // One word, balance | payout << 96: read and written once.
        assembly ("memory-safe") {
            word := sload(due.slot)
            sstore(due.slot, shl(96, shr(96, word)))
        }
        uint256 amount = uint96(word);
        require(amount != 0, NothingDue());
        address payout = word >> 96 == 0 ? host : address(uint160(word >> 96));
        emit Withdrawn(host, payout, amount);
        coin.safeTransfer(payout, amount);
    }

    /// @inheritdoc ISettlement
    function claim(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k) external {
        (address payee, uint256 bps) = _party(parties, k);
        uint256 amount = _take(Rows.tableHash(agent, parties), bps, k, payee);
        require(amount != 0, NothingDue());
        coin.safeTransfer(payee, amount);
    }

    /// @inheritdoc ISettlement
    function claimMany(address payee, Share[] calldata shares) external {
        uint256 amount = 0;
        for (uint256 i = 0; i < shares.length; ++i) {
            Share calldata share = shares[i];
            (address party, uint256 bps) = _party(share.parties, share.k);
            require(party == payee, WrongParty(share.k));
            amount += _take(Rows.tableHash(share.agent, share.parties), bps, share.k, payee);
        }
        require(amount != 0, NothingDue());
        coin.safeTransfer(payee, amount);
    }

    /// @inheritdoc ISettlement
    function accounts(address payer) external view returns (uint96 free, uint96 exitAmount, uint40 exitAt) {
        Account storage a = _books[payer].account;
        return (a.free, a.exitAmount, a.exitAt);
    }

    /// @inheritdoc ISettlement
    function sessions(address key) external view returns (address payer, uint96 cap, uint96 locked, uint40 expiry) {
        Session storage s = _books[key].session;
        return (s.payer, s.cap, s.locked, s.expiry);
    }

    /// @inheritdoc ISettlement
    function hostBalance(address host) external view returns (uint256) {
        return _hosts[host].balance;
    }

    /// @inheritdoc ISettlement
    function payoutOf(address host) public view returns (address) {
        address payout = _hosts[host].payout;
        return payout == address(0) ? host : payout;
    }

    /// @inheritdoc ISettlement
    function earned(bytes32 terms) external view returns (uint256) {
        uint256 word = _word(_pools[terms]);
        return _earned(uint128(word), word >> 128);
    }

    /// @inheritdoc ISettlement
    function gross(bytes32 terms) external view returns (uint256) {
        return _pools[terms].gross;
    }

    /// @inheritdoc ISettlement
    function claimed(bytes32 terms, uint256 k) public view returns (uint256) {
        return k < 16 ? _pools[terms].claimed[k] : 0;
    }

    /// @inheritdoc ISettlement
    function claimable(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k)
        external
        view
        returns (uint256)
    {
        (, uint256 bps) = _party(parties, k);
        bytes32 terms = Rows.tableHash(agent, parties);
        return _entitled(_word(_pools[terms]), bps, k) - claimed(terms, k);
    }

    /// @inheritdoc ISettlement
    function payerOf(address signer) external view returns (address) {
        address payer = _books[signer].session.payer;
        return payer == address(0) ? signer : payer;
    }

    /// @inheritdoc ISettlement
    function channelId(address signer, address host, bytes32 terms, uint32 epoch) public pure returns (bytes32) {
        return keccak256(abi.encode(signer, host, terms, epoch));
    }

    /// @inheritdoc ISettlement
    function voucherDigest(address host, bytes32 terms, uint32 epoch, uint96 cumulative)
        external
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, host, terms, epoch, cumulative)));
    }

    /// @inheritdoc ISettlement
    function lockDigest(address host, bytes32 terms, uint32 epoch, uint96 cumulative) external view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(LOCK_TYPEHASH, host, terms, epoch, cumulative)));
    }

    /// @inheritdoc ISettlement
    function sessionConsentDigest(address payer) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(SESSION_CONSENT_TYPEHASH, payer)));
    }

    /// @inheritdoc ISettlement
    function sessionGrantDigest(address payer, address key, uint96 cap, uint40 expiry, uint64 nonce)
        public
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(keccak256(abi.encode(SESSION_GRANT_TYPEHASH, payer, key, cap, expiry, nonce)));
    }

    /// @inheritdoc ISettlement
    function offerDigest(Offer calldata offer) external view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(OFFER_TYPEHASH, offer)));
    }

    function _deposit(address payer, uint96 amount) private {
        _credit(payer, msg.sender, amount);
        Coins.pull(coin, msg.sender, amount);
    }

    /// @dev Whoever calls this takes the coins in next, or reverts.
    function _credit(address payer, address from, uint96 amount) private {
        require(amount != 0, ZeroAmount());
        require(payer != address(0), ZeroAddress());
        _books[payer].account.free += amount;
        emit Deposited(payer, from, amount);
    }

    function _authorize(address payer, address key, uint96 cap, uint40 expiry, bytes calldata consent) private {
        Session storage session = _books[key].session;
        address owner = session.payer;
        if (owner == address(0)) {
            bool consents = ECDSA.recoverCalldata(sessionConsentDigest(payer), consent) == key;
            require(consents && key != payer, BadConsent(key));
            session.payer = payer;
        } else {
            require(owner == payer, KeyTaken(key, owner));
        }
        session.cap = cap;
        session.expiry = expiry;
        emit Authorized(payer, key, cap, expiry);
    }

    /// @dev Returns the number of rows that moved something.
    function _lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256) {
        Rows.check(rows);
        uint256 form = Rows.prepare(_domainSeparatorV4(), LOCK_TYPEHASH, host, terms, epoch);
        uint256 books;
        uint256 row;
        assembly ("memory-safe") {
            books := _books.slot
            row := rows.offset
        }
        return Rows.lock(form, row, row + rows.length, books);
    }

    /// @dev Returns the number of rows that moved something.
    function _redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256 moved) {
        Rows.check(rows);
        uint256 word = _word(_pools[terms]);
        if (word == 0) {
            (, uint16 royaltyBps,,,) = registry.terms(terms);
            require(royaltyBps != 0, UnknownTerms(terms));
            word = uint256(royaltyBps) << 128;
        }
        uint256 form = Rows.prepare(_domainSeparatorV4(), VOUCHER_TYPEHASH, host, terms, epoch);
        uint256 slot;
        assembly ("memory-safe") {
            slot := channels.slot
        }
        uint256 total;
        (total, moved) = Rows.redeem(form, rows, slot);
        if (moved == 0) return 0;
        (uint256 hostAmount, uint256 royalty) = _share(host, terms, word, total);
        emit Redeemed(host, terms, epoch, hostAmount, royalty, moved);
    }

    /// @dev The pool is owed floor(gross * royaltyBps / 10000) at any time, whatever the batches were: the host gets the rest.
    function _share(address host, bytes32 terms, uint256 word, uint256 total)
        private
        returns (uint256 hostAmount, uint256 royalty)
    {
        uint256 royaltyBps = word >> 128;
        uint256 gross_ = uint128(word);
        royalty = _earned(gross_ + total, royaltyBps) - _earned(gross_, royaltyBps);
        hostAmount = total - royalty;
        // Both sums are made of parts of the coin's supply, so they fit; a coin that does not would stop here, not wrap.
        word = royaltyBps << 128 | SafeCast.toUint128(gross_ + total);
        Pool storage pool = _pools[terms];
        assembly ("memory-safe") {
            sstore(pool.slot, word)
        }
        Host storage balance = _hosts[host];
        balance.balance = SafeCast.toUint96(balance.balance + hostAmount);
    }

    /// @dev Books party k's share as claimed and returns it. The table is authentic if its hash has earned anything.
    function _take(bytes32 terms, uint256 bps, uint256 k, address payee) private returns (uint256 amount) {
        Pool storage pool = _pools[terms];
        uint256 entitled = _entitled(_word(pool), bps, k);
        if (entitled == 0) return 0;
        uint256 before = pool.claimed[k];
        amount = entitled - before;
        if (amount == 0) return 0;
        pool.claimed[k] = entitled;
        emit Claimed(terms, payee, k, amount);
    }

    /// @dev Takes the words as they came: with dirty bits in them the table has a hash that nobody ever agreed.
    function _party(IAgentRegistry.Party[] calldata parties, uint256 k)
        private
        pure
        returns (address payee, uint256 bps)
    {
        require(k < parties.length, WrongParty(k));
        assembly ("memory-safe") {
            let at := add(parties.offset, mul(k, 0x60))
            payee := shr(96, shl(96, calldataload(at)))
            bps := and(calldataload(add(at, 0x40)), 0xffff)
        }
    }

    /// @dev A pool's first word: gross | royaltyBps << 128.
    function _word(Pool storage pool) private view returns (uint256 word) {
        assembly ("memory-safe") {
            word := sload(pool.slot)
        }
    }

    /// @dev What party k may have claimed in all, out of the pool's total T: grows with T for every k, so nobody is ever ahead
    /// of its share. Party 0 rounds up, the others down, and together they never pass T: the others' sum is an integer
    /// not above T - x_0, hence not above T - ceil(x_0).
    function _entitled(uint256 word, uint256 bps, uint256 k) private pure returns (uint256) {
        uint256 royaltyBps = word >> 128;
        if (royaltyBps == 0) return 0;
        // A 128-bit total times two numbers below 10,000.
        unchecked {
            uint256 weighted = (uint128(word) * royaltyBps / WHOLE_BPS) * bps;
            if (k == 0) weighted += royaltyBps - 1;
            return weighted / royaltyBps;
        }
    }

    /// @dev `total` fits 128 bits, or is one redemption above that and then refused: the product cannot overflow.
    function _earned(uint256 total, uint256 royaltyBps) private pure returns (uint256) {
        unchecked {
            return total * royaltyBps / WHOLE_BPS;
        }
    }
}
