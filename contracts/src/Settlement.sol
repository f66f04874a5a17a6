// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {AgentRegistry} from "./AgentRegistry.sol";
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
    bytes32 public constant OFFER_TYPEHASH = keccak256(
        "Offer(address host,bytes32 agent,bytes32 terms,uint96 priceIn,uint96 priceOut,uint32 slots,uint64 sequence,uint64 expires,bytes32 detail)"
    );
    uint256 private constant WHOLE_BPS = 10_000;
    uint256 private constant MAX_DELAY = 90 days;
    /// @dev The flags in a channel's word: after locked and redeemed (96 bits each) and closesAt (40).
    uint256 private constant VIA_SESSION = 1 << 232;
    uint256 private constant DEAD = 1 << 240;

    /// @dev `royaltyBps` is the registry's, kept here at the first redemption: terms never change.
    struct Pool {
        uint128 gross;
        uint16 royaltyBps;
    }

    IERC20 public immutable coin;
    AgentRegistry public immutable registry;
    uint40 public immutable exitDelay;
    uint40 public immutable closeDelay;

    mapping(address payer => Account) public accounts;
    mapping(address key => Session) public sessions;
    mapping(bytes32 id => Channel) public channels;
    mapping(address host => Host) private _hosts;
    mapping(bytes32 terms => Pool) private _pools;
    mapping(bytes32 terms => mapping(uint256 k => uint256)) public claimed;

    constructor(IERC20 coin_, AgentRegistry registry_, uint40 exitDelay_, uint40 closeDelay_) EIP712("Lading", "1") {
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
    function authorize(address key, uint96 cap, uint40 expiry, bytes calldata consent) external {
        Session storage session = sessions[key];
        address payer = session.payer;
        if (payer == address(0)) {
            bool consents = ECDSA.recoverCalldata(sessionConsentDigest(msg.sender), consent) == key;
            require(consents && key != msg.sender, BadConsent(key));
            session.payer = msg.sender;
        } else {
            require(payer == msg.sender, KeyTaken(key, payer));
        }
        session.cap = cap;
        session.expiry = expiry;
        emit Authorized(msg.sender, key, cap, expiry);
    }

    /// @inheritdoc ISettlement
    function revoke(address key) external {
        require(sessions[key].payer == msg.sender, NotPayer(msg.sender));
        sessions[key].expiry = 0;
        emit Revoked(msg.sender, key);
    }

    /// @inheritdoc ISettlement
    function requestExit(uint96 amount) external {
        Account storage account = accounts[msg.sender];
        require(amount <= account.free, OverFree(account.free));
        uint40 exitAt = amount == 0 ? 0 : uint40(block.timestamp) + exitDelay;
        account.exitAmount = amount;
        account.exitAt = exitAt;
        emit ExitRequested(msg.sender, amount, exitAt);
    }

    /// @inheritdoc ISettlement
    function finishExit() external {
        Account storage account = accounts[msg.sender];
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
        uint256 moved = _lock(host, terms, epoch, locks);
        moved += _redeem(host, terms, epoch, vouchers);
        require(moved != 0, NoProgress());
    }

    /// @inheritdoc ISettlement
    function startClose(address signer, address host, bytes32 terms, uint32 epoch) external {
        Channel storage channel = channels[channelId(signer, host, terms, epoch)];
        require(channel.locked != 0 && channel.closesAt == 0, NotClosable());
        address payer = channel.viaSession ? sessions[signer].payer : signer;
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
            payer = sessions[signer].payer;
            sessions[signer].locked -= rest;
        }
        accounts[payer].free += rest;
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
        Host memory due = _hosts[host];
        uint256 amount = due.balance;
        require(amount != 0, NothingDue());
        _hosts[host] = Host(0, due.payout);
        address payout = due.payout == address(0) ? host : due.payout;
        emit Withdrawn(host, payout, amount);
        coin.safeTransfer(payout, amount);
    }

    /// @inheritdoc ISettlement
    function claim(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k) external {
        require(k < parties.length, WrongParty(k));
        address payee = parties[k].payee;
        uint256 amount = _take(agent, parties, k, payee);
        require(amount != 0, NothingDue());
        coin.safeTransfer(payee, amount);
    }

    /// @inheritdoc ISettlement
    function claimMany(address payee, Share[] calldata shares) external {
        uint256 amount = 0;
        for (uint256 i = 0; i < shares.length; ++i) {
            Share calldata share = shares[i];
            bool theirs = share.k < share.parties.length && share.parties[share.k].payee == payee;
            require(theirs, WrongParty(share.k));
            amount += _take(share.agent, share.parties, share.k, payee);
        }
        require(amount != 0, NothingDue());
        coin.safeTransfer(payee, amount);
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
        Pool storage pool = _pools[terms];
        return _earned(pool.gross, pool.royaltyBps);
    }

    /// @inheritdoc ISettlement
    function gross(bytes32 terms) external view returns (uint256) {
        return _pools[terms].gross;
    }

    /// @inheritdoc ISettlement
    function claimable(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k)
        external
        view
        returns (uint256)
    {
        require(k < parties.length, WrongParty(k));
        bytes32 terms = Rows.tableHash(agent, parties);
        return _entitled(terms, parties[k].bps, k) - claimed[terms][k];
    }

    /// @inheritdoc ISettlement
    function payerOf(address signer) external view returns (address) {
        address payer = sessions[signer].payer;
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
    function offerDigest(Offer calldata offer) external view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(OFFER_TYPEHASH, offer)));
    }

    function _deposit(address payer, uint96 amount) private {
        require(amount != 0, ZeroAmount());
        require(payer != address(0), ZeroAddress());
        accounts[payer].free += amount;
        emit Deposited(payer, msg.sender, amount);
        coin.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @dev Returns the number of rows that moved something.
    function _lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256 moved) {
        Rows.check(rows);
        uint256 form = Rows.prepare(_domainSeparatorV4(), LOCK_TYPEHASH, host, terms, epoch);
        (uint256 row, uint256 end) = Rows.span(rows);
        while (row < end) {
            (address signer, uint256 cumulative, bytes32 id) = Rows.read(form, row);
            uint256 total = signer == address(0) ? 0 : _moveToChannel(signer, cumulative, id);
            // Neither can overflow: both count through calldata.
            unchecked {
                row += Rows.SIZE;
                if (total != 0) ++moved;
            }
            if (total != 0) emit Locked(signer, host, terms, epoch, total);
        }
    }

    /// @dev Returns the channel's new lock, or zero if the row moves nothing. Reads and writes the channel's and the account's
    /// slot as one word each, laid out as `Channel` and `Account` are: `locked` and `free` are the low 96 bits.
    function _moveToChannel(address signer, uint256 cumulative, bytes32 id) private returns (uint256) {
        Channel storage channel = channels[id];
        uint256 word;
        assembly ("memory-safe") {
            word := sload(channel.slot)
        }
        uint256 locked = uint96(word);
        if (cumulative <= locked || word & DEAD != 0) return 0;
        address payer = sessions[signer].payer;
        uint256 via = payer == address(0) ? 0 : VIA_SESSION;
        // The key became a session after it opened this channel with its own money: the two must never mix.
        if (locked != 0 && word & VIA_SESSION != via) return 0;
        Account storage account = accounts[via == 0 ? signer : payer];
        uint256 purse;
        assembly ("memory-safe") {
            purse := sload(account.slot)
        }
        unchecked {
            uint256 amount = cumulative - locked;
            if (amount > uint96(purse)) amount = uint96(purse);
            if (via != 0) amount = _spendSession(sessions[signer], amount);
            if (amount == 0) return 0;
            // amount <= free, and locked + amount <= cumulative: neither leaves its 96 bits.
            assembly ("memory-safe") {
                sstore(account.slot, sub(purse, amount))
                sstore(channel.slot, or(add(word, amount), via))
            }
            return locked + amount;
        }
    }

    /// @dev Returns how much of `amount` the session may lock, and books it.
    function _spendSession(Session storage session, uint256 amount) private returns (uint256) {
        uint256 locked = session.locked;
        uint256 cap = session.cap;
        if (block.timestamp >= session.expiry || locked >= cap) return 0;
        if (amount > cap - locked) amount = cap - locked;
        session.locked = uint96(locked + amount);
        return amount;
    }

    /// @dev Returns the number of rows that moved something.
    function _redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256 moved) {
        Rows.check(rows);
        Pool memory pool = _pools[terms];
        if (pool.royaltyBps == 0) {
            (, pool.royaltyBps,,) = registry.terms(terms);
            require(pool.royaltyBps != 0, UnknownTerms(terms));
        }
        uint256 form = Rows.prepare(_domainSeparatorV4(), VOUCHER_TYPEHASH, host, terms, epoch);
        uint256 slot;
        assembly ("memory-safe") {
            slot := channels.slot
        }
        uint256 total;
        (total, moved) = Rows.redeem(form, rows, slot);
        if (moved == 0) return 0;
        (uint256 hostAmount, uint256 royalty) = _credit(host, terms, pool, total);
        emit Redeemed(host, terms, epoch, hostAmount, royalty, moved);
    }

    /// @dev The pool is owed floor(gross * royaltyBps / 10000) at any time, whatever the batches were: the host gets the rest.
    function _credit(address host, bytes32 terms, Pool memory pool, uint256 total)
        private
        returns (uint256 hostAmount, uint256 royalty)
    {
        uint256 royaltyBps = pool.royaltyBps;
        uint256 sum = pool.gross;
        royalty = _earned(sum + total, royaltyBps) - _earned(sum, royaltyBps);
        hostAmount = total - royalty;
        // Both sums are made of parts of the coin's supply, so they fit; a coin that does not would stop here, not wrap.
        _pools[terms] = Pool(SafeCast.toUint128(sum + total), uint16(royaltyBps));
        Host storage balance = _hosts[host];
        balance.balance = SafeCast.toUint96(balance.balance + hostAmount);
    }

    /// @dev Books party k's share as claimed and returns it. The table is authentic if its hash has earned anything.
    function _take(bytes32 agent, IAgentRegistry.Party[] calldata parties, uint256 k, address payee)
        private
        returns (uint256 amount)
    {
        bytes32 terms = Rows.tableHash(agent, parties);
        uint256 entitled = _entitled(terms, parties[k].bps, k);
        mapping(uint256 => uint256) storage before = claimed[terms];
        amount = entitled - before[k];
        if (amount == 0) return 0;
        before[k] = entitled;
        emit Claimed(terms, payee, k, amount);
    }

    /// @dev What party k may have claimed in all, out of the pool's total T: grows with T for every k, so nobody is ever ahead
    /// of its share. Party 0 rounds up, the others down, and together they never pass T: the others' sum is an integer
    /// not above T - x_0, hence not above T - ceil(x_0).
    function _entitled(bytes32 terms, uint256 bps, uint256 k) private view returns (uint256) {
        Pool storage pool = _pools[terms];
        uint256 royaltyBps = pool.royaltyBps;
        if (royaltyBps == 0) return 0;
        // A 128-bit total times two numbers below 10,000.
        unchecked {
            uint256 weighted = _earned(pool.gross, royaltyBps) * bps;
            return k == 0 ? (weighted + royaltyBps - 1) / royaltyBps : weighted / royaltyBps;
        }
    }

    /// @dev `total` fits 128 bits, or is one redemption above that and then refused: the product cannot overflow.
    function _earned(uint256 total, uint256 royaltyBps) private pure returns (uint256) {
        unchecked {
            return total * royaltyBps / WHOLE_BPS;
        }
    }
}
