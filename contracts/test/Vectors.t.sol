// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Leases} from "../src/Leases.sol";
import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {IStaking} from "../src/interfaces/IStaking.sol";
import {Kit} from "./Kit.sol";

/// @notice What is signed here is read by `tests/contracts/test_vectors.py`: every signed struct with values of its own, its
/// digest by the contract's view, and forge's signature of it. Zeroes, then the largest values, then arbitrary ones.
contract VectorsTest is Kit {
    uint256 private constant KEY = uint256(keccak256("lading vectors"));
    uint256 private constant ROUNDS = 24;

    Leases private leases;

    /// @notice `kind` is the struct's name, `words` its fields.
    event Vector(string kind, uint256 chainId, address verifier, bytes words, bytes32 digest, bytes signature);

    function setUp() public {
        deployAll();
        leases = new Leases(IERC20(address(coin)), IStaking(address(staking)), ISettlement(address(settlement)));
    }

    function test_vectors() public {
        for (uint256 i = 0; i < ROUNDS; ++i) {
            uint256 w = i == 0 ? 0 : i == 1 ? type(uint256).max : uint256(keccak256(abi.encode(i)));
            _ofSettlement(address(uint160(w)), bytes32(w), uint32(w >> 7), uint96(w >> 11), uint64(w >> 13));
            _ofOthers(address(uint160(w)), bytes32(w), uint32(w >> 7), uint40(w >> 11));
            _ofReceipt(bytes32(w), uint32(w >> 7), uint96(w >> 11), uint64(w >> 13));
        }
    }

    function _emit(string memory kind, address verifier, bytes memory words, bytes32 digest) private {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEY, digest);
        emit Vector(kind, block.chainid, verifier, words, digest, abi.encodePacked(r, s, v));
    }

    function _ofSettlement(address a, bytes32 t, uint32 epoch, uint96 amount, uint64 nonce) private {
        address at_ = address(settlement);
        bytes memory row = abi.encode(a, t, epoch, amount);
        _emit("Voucher", at_, row, settlement.voucherDigest(a, t, epoch, amount));
        _emit("Lock", at_, row, settlement.lockDigest(a, t, epoch, amount));
        _emit("SessionConsent", at_, abi.encode(a), settlement.sessionConsentDigest(a));
        bytes32 digest = settlement.sessionGrantDigest(payer, a, amount, uint40(nonce), nonce);
        _emit("SessionGrant", at_, abi.encode(payer, a, amount, uint40(nonce), nonce), digest);
        bytes32 detail = keccak256(abi.encode(t));
        ISettlement.Offer memory o =
            ISettlement.Offer(a, t, detail, amount, amount / 3, epoch, nonce, nonce / 2, ~detail);
        _emit("Offer", at_, abi.encode(o), settlement.offerDigest(o));
    }

    function _ofOthers(address a, bytes32 t, uint32 served, uint40 deadline) private {
        _emit("TermsConsent", address(registry), abi.encode(t, deadline), registry.consentDigest(t, deadline));
        _emit("StakeConsent", address(staking), abi.encode(a), staking.stakeConsentDigest(a));
        _emit("Served", address(leases), abi.encode(t, served), leases.servedDigest(t, served));
    }

    function _ofReceipt(bytes32 t, uint32 n, uint96 amount, uint64 issuedAt) private {
        IAuditCourt.Receipt memory r;
        (r.job, r.attempt, r.request, r.agent) = (t, n, ~t, keccak256(abi.encode(t)));
        (r.terms, r.host, r.signer, r.epoch) = (~r.agent, host, payer, n / 2);
        (r.first, r.promptTokens, r.outputTokens) = (n / 3, n / 5, n / 7);
        (r.promptHash, r.commitment) = (bytes32(uint256(amount)), keccak256(abi.encode(amount)));
        (r.priceIn, r.priceOut, r.amount) = (amount, amount / 3, amount / 7);
        (r.finish, r.issuedAt, r.tier) = (uint8(n), issuedAt, uint8(n >> 8));
        _emit("Receipt", address(court), abi.encode(r), court.receiptDigest(r));
        _emit("Sheaf", address(court), abi.encode(t, n), court.sheafDigest(t, n));
    }
}
