// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Settlement} from "../../src/Settlement.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {ISettlement} from "../../src/interfaces/ISettlement.sol";

/// @notice Locks and vouchers as a reader of the interface would write them: no assembly, no packing, no order to save gas in.
/// Checks signatures of `model`'s domain; holds no coins.
contract PlainSettlement {
    using ECDSA for bytes32;

    uint256 private constant ROW = 76;

    Settlement private immutable model;
    IAgentRegistry private immutable registry;

    mapping(address payer => uint256) public free;
    mapping(address key => ISettlement.Session) public sessions;
    mapping(bytes32 id => ISettlement.Channel) public channels;
    mapping(address host => uint256) public hostBalance;
    mapping(bytes32 terms => uint256) public gross;

    constructor(Settlement model_, IAgentRegistry registry_) {
        (model, registry) = (model_, registry_);
    }

    // ---- what the test moves by hand, as it does in the model

    function credit(address payer, uint256 amount) external {
        free[payer] += amount;
    }

    function authorize(address payer, address key, uint96 cap, uint40 expiry) external {
        ISettlement.Session storage session = sessions[key];
        (session.payer, session.cap, session.expiry) = (payer, cap, expiry);
    }

    function close(address signer, address host, bytes32 terms, uint32 epoch) external {
        ISettlement.Channel storage channel = channels[_id(signer, host, terms, epoch)];
        uint96 rest = channel.locked - channel.redeemed;
        channel.locked = channel.redeemed;
        channel.dead = true;
        if (channel.viaSession) sessions[signer].locked -= rest;
        free[channel.viaSession ? sessions[signer].payer : signer] += rest;
    }

    // ---- the verbs

    function lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external {
        require(registry.isOpen(terms), ISettlement.TermsClosed(terms));
        require(_lock(host, terms, epoch, rows) != 0, ISettlement.NoProgress());
    }

    function redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external {
        require(_redeem(host, terms, epoch, rows) != 0, ISettlement.NoProgress());
    }

    function lockAndRedeem(address host, bytes32 terms, uint32 epoch, bytes calldata locks, bytes calldata vouchers)
        external
    {
        _whole(locks);
        uint256 moved = registry.isOpen(terms) ? _lock(host, terms, epoch, locks) : 0;
        require(moved + _redeem(host, terms, epoch, vouchers) != 0, ISettlement.NoProgress());
    }

    function _lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256 moved) {
        _whole(rows);
        for (uint256 i = 0; i < rows.length / ROW; ++i) {
            uint96 sum = _cumulative(rows, i);
            address signer = _signer(rows, i, model.lockDigest(host, terms, epoch, sum));
            uint256 locked = signer == address(0) ? 0 : _lockRow(signer, _id(signer, host, terms, epoch), sum);
            if (locked == 0) continue;
            ++moved;
            emit ISettlement.Locked(signer, host, terms, epoch, locked);
        }
    }

    /// @dev Returns the channel's new lock, or zero for a row that moves nothing.
    function _lockRow(address signer, bytes32 id, uint96 cumulative) private returns (uint256) {
        ISettlement.Channel storage channel = channels[id];
        if (channel.dead || cumulative <= channel.locked) return 0;
        ISettlement.Session storage session = sessions[signer];
        bool via = session.payer != address(0);
        if (channel.locked != 0 && channel.viaSession != via) return 0;
        address payer = via ? session.payer : signer;
        uint256 amount = cumulative - channel.locked;
        if (amount > free[payer]) amount = free[payer];
        if (via) {
            if (block.timestamp >= session.expiry || session.locked >= session.cap) return 0;
            if (amount > session.cap - session.locked) amount = session.cap - session.locked;
        }
        if (amount == 0) return 0;
        free[payer] -= amount;
        if (via) session.locked += SafeCast.toUint96(amount);
        channel.locked += SafeCast.toUint96(amount);
        channel.viaSession = via;
        return channel.locked;
    }

    function _redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows) private returns (uint256 moved) {
        _whole(rows);
        (, uint16 royaltyBps,,,) = registry.terms(terms);
        require(royaltyBps != 0, ISettlement.UnknownTerms(terms));
        uint256 total;
        (total, moved) = _redeemRows(host, terms, epoch, rows);
        if (moved == 0) return 0;
        uint256 royalty = (gross[terms] + total) * royaltyBps / 10_000 - gross[terms] * royaltyBps / 10_000;
        gross[terms] += total;
        hostBalance[host] += total - royalty;
        emit ISettlement.Redeemed(host, terms, epoch, total - royalty, royalty, moved);
    }

    function _redeemRows(address host, bytes32 terms, uint32 epoch, bytes calldata rows)
        private
        returns (uint256 total, uint256 moved)
    {
        for (uint256 i = 0; i < rows.length / ROW; ++i) {
            uint96 sum = _cumulative(rows, i);
            address signer = _signer(rows, i, model.voucherDigest(host, terms, epoch, sum));
            if (signer == address(0)) continue;
            uint256 amount = _redeemRow(_id(signer, host, terms, epoch), sum);
            if (amount == 0) continue;
            ++moved;
            total += amount;
        }
    }

    function _redeemRow(bytes32 id, uint96 cumulative) private returns (uint256 amount) {
        ISettlement.Channel storage channel = channels[id];
        uint96 upTo = cumulative < channel.locked ? cumulative : channel.locked;
        if (upTo <= channel.redeemed) return 0;
        amount = upTo - channel.redeemed;
        channel.redeemed = upTo;
    }

    function _whole(bytes calldata rows) private pure {
        require(rows.length % ROW == 0, ISettlement.RaggedRows(rows.length));
    }

    function _cumulative(bytes calldata rows, uint256 i) private pure returns (uint96) {
        return uint96(bytes12(rows[i * ROW:i * ROW + 12]));
    }

    /// @dev Zero for anything that OpenZeppelin does not take.
    function _signer(bytes calldata rows, uint256 i, bytes32 digest) private pure returns (address signer) {
        bytes32 r = bytes32(rows[i * ROW + 12:i * ROW + 44]);
        bytes32 vs = bytes32(rows[i * ROW + 44:i * ROW + 76]);
        (signer,,) = digest.tryRecover(r, vs);
    }

    function _id(address signer, address host, bytes32 terms, uint32 epoch) private pure returns (bytes32) {
        return keccak256(abi.encode(signer, host, terms, epoch));
    }
}
