// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {ISettlement} from "../src/interfaces/ISettlement.sol";
import {Kit} from "./Kit.sol";

/// @notice The digests that the contracts check, against EIP-712 spelt out by hand.
contract DigestsTest is Kit {
    function setUp() public {
        deployAll();
    }

    function _digest(address verifier, bytes memory content) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Lading"),
                keccak256("1"),
                block.chainid,
                verifier
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, keccak256(content)));
    }

    function test_settlement_digests() public view {
        address at_ = address(settlement);
        string memory fields = "(address host,bytes32 terms,uint32 epoch,uint96 cumulative)";
        bytes32 voucherType = keccak256(bytes(string.concat("Voucher", fields)));
        bytes32 lockType = keccak256(bytes(string.concat("Lock", fields)));
        bytes32 expected = _digest(at_, abi.encode(voucherType, host, terms, uint32(7), uint96(9)));
        vm.assertEq(settlement.voucherDigest(host, terms, 7, 9), expected, "voucher");
        expected = _digest(at_, abi.encode(lockType, host, terms, uint32(7), uint96(9)));
        vm.assertEq(settlement.lockDigest(host, terms, 7, 9), expected, "lock");
        expected = _digest(at_, abi.encode(keccak256("SessionConsent(address payer)"), payer));
        vm.assertEq(settlement.sessionConsentDigest(payer), expected, "consent");
        expected = _digest(address(staking), abi.encode(keccak256("StakeConsent(address owner)"), payer));
        vm.assertEq(staking.stakeConsentDigest(payer), expected, "stake consent");
    }

    function test_offer_digest() public view {
        ISettlement.Offer memory o = ISettlement.Offer(host, AGENT, terms, 1, 2, 3, 4, 5, keccak256("detail"));
        bytes32 typehash = keccak256(
            "Offer(address host,bytes32 agent,bytes32 terms,uint96 priceIn,uint96 priceOut,uint32 slots,uint64 sequence,uint64 expires,bytes32 detail)"
        );
        bytes memory content = abi.encode(typehash, host, AGENT, terms, 1, 2, 3, 4, 5, keccak256("detail"));
        vm.assertEq(settlement.offerDigest(o), _digest(address(settlement), content), "offer");
    }

    function test_receipt_digest() public view {
        IAuditCourt.Receipt memory r;
        r.job = bytes32(uint256(1));
        r.attempt = 2;
        r.request = bytes32(uint256(3));
        r.agent = bytes32(uint256(4));
        r.terms = bytes32(uint256(5));
        r.host = address(6);
        r.signer = address(7);
        r.epoch = 8;
        r.first = 9;
        r.promptTokens = 10;
        r.outputTokens = 11;
        r.promptHash = bytes32(uint256(12));
        r.commitment = bytes32(uint256(13));
        r.priceIn = 14;
        r.priceOut = 15;
        r.amount = 16;
        r.finish = 17;
        r.issuedAt = 18;
        r.tier = 19;
        bytes32 typehash = keccak256(
            "Receipt(bytes32 job,uint32 attempt,bytes32 request,bytes32 agent,bytes32 terms,address host,address signer,uint32 epoch,uint32 first,uint32 promptTokens,uint32 outputTokens,bytes32 promptHash,bytes32 commitment,uint96 priceIn,uint96 priceOut,uint96 amount,uint8 finish,uint64 issuedAt,uint8 tier)"
        );
        // The fields are numbered in the order of the type string: every word is its own position.
        bytes memory content = abi.encode(typehash);
        for (uint256 i = 1; i <= 19; ++i) {
            content = bytes.concat(content, abi.encode(i));
        }
        vm.assertEq(court.receiptDigest(r), _digest(address(court), content), "receipt");
    }
}
