// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {TreeKit} from "./TreeKit.sol";

/// @notice Receipts that their host signed many at once: each opens with its own path, and nothing else does.
contract SheavesTest is TreeKit {
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    function setUp() public {
        deployAll();
        enrol(3);
    }

    function _leaves(uint256 count) private view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint256 n = 0; n < count; ++n) {
            leaves[n] = court.receiptDigest(receiptOf(n));
        }
    }

    function _with(bytes memory signed, uint256 index, uint256 count, bytes memory path)
        private
        pure
        returns (bytes memory)
    {
        return bytes.concat(signed, bytes2(uint16(index)), bytes2(uint16(count)), path);
    }

    /// @dev Whether the challenger opens with it; a refusal is that of a bad signature.
    function _try(IAuditCourt.Receipt memory r, bytes memory signature) private returns (bool) {
        bytes memory call_ = abi.encodeCall(court.open, (r, signature));
        vm.prank(challenger);
        (bool ok, bytes memory reason) = address(court).call(call_);
        vm.assertTrue(ok || bytes4(reason) == IAuditCourt.BadReceipt.selector, "refused as a bad signature is");
        return ok;
    }

    function test_every_receipt_of_every_small_sheaf_opens_in_its_own_place_and_in_no_other() public {
        for (uint256 count = 2; count <= 33; ++count) {
            bytes32[] memory leaves = _leaves(count);
            bytes memory signed = sign65(HOST_KEY, court.sheafDigest(treeRoot(leaves, 0, count), uint32(count)));
            uint256 fork = vm.snapshotState();
            for (uint256 n = 0; n < count; ++n) {
                _onlyHere(leaves, signed, n);
            }
            vm.revertToState(fork);
        }
    }

    function _onlyHere(bytes32[] memory leaves, bytes memory signed, uint256 n) private {
        uint256 count = leaves.length;
        bytes memory path = abi.encodePacked(treePath(leaves, n));
        IAuditCourt.Receipt memory r = receiptOf(n);
        vm.assertTrue(!_try(r, _with(signed, n + 1, count, path)), "the next place");
        vm.assertTrue(!_try(r, _with(signed, n ^ 1, count, path)), "the sibling's place");
        vm.assertTrue(!_try(r, _with(signed, n, count + 1, path)), "of one more");
        vm.assertTrue(!_try(r, _with(signed, n, count - 1, path)), "of one less");
        vm.assertTrue(
            !_try(r, _with(signed, n, count, abi.encodePacked(treePath(leaves, (n + 1) % count)))), "another's path"
        );
        vm.assertTrue(!_try(r, _with(signed, n, count, bytes.concat(path, leaves[0]))), "a longer path");
        vm.assertTrue(!_try(receiptOf(n + 1), _with(signed, n, count, path)), "another receipt");
        vm.assertTrue(!_try(r, signed), "the bare signature of the root");
        vm.assertTrue(_try(r, _with(signed, n, count, path)), "the receipt");
    }

    /// forge-config: default.fuzz.runs = 512
    /// forge-config: long.fuzz.runs = 10000
    function test_no_flipped_bit_and_no_cut_is_let_pass(uint8 size, uint8 at, uint16 bit, uint16 cut) public {
        uint256 count = bound(size, 2, 40);
        uint256 n = bound(at, 0, count - 1);
        bytes32[] memory leaves = _leaves(count);
        bytes memory signed = sign65(HOST_KEY, court.sheafDigest(treeRoot(leaves, 0, count), uint32(count)));
        bytes memory whole = _with(signed, n, count, abi.encodePacked(treePath(leaves, n)));
        bytes memory bad = bytes.concat(whole);
        uint256 flipped = bound(bit, 0, 8 * bad.length - 1);
        bad[flipped / 8] = bad[flipped / 8] ^ bytes1(uint8(1 << (flipped % 8)));
        vm.assertTrue(!_try(receiptOf(n), bad), "a flipped bit");
        bytes memory short = new bytes(bound(cut, 0, whole.length - 1));
        for (uint256 i = 0; i < short.length; ++i) {
            short[i] = whole[i];
        }
        vm.assertTrue(!_try(receiptOf(n), short), "cut short");
        vm.assertTrue(_try(receiptOf(n), whole), "whole");
    }

    /// @notice The host itself cannot make an inner node pass for a receipt, nor a receipt for an inner node: it would need a
    /// receipt whose digest, keccak256 of bytes that begin with 0x1901, is a sha256.
    function test_a_wrong_count_that_the_host_signed_moves_no_receipt() public {
        bytes32[] memory leaves = _leaves(4);
        bytes32 root = treeRoot(leaves, 0, 4);
        bytes memory signed = sign65(HOST_KEY, court.sheafDigest(root, 2));
        bytes memory upper = bytes.concat(treeNode(leaves[2], leaves[3]));
        vm.assertTrue(!_try(receiptOf(0), _with(signed, 0, 2, upper)), "not where its parent is");
        vm.assertTrue(!_try(receiptOf(0), _with(signed, 0, 2, abi.encodePacked(treePath(leaves, 0)))), "nor below it");
        signed = sign65(HOST_KEY, court.sheafDigest(root, 8));
        vm.assertTrue(!_try(receiptOf(0), _with(signed, 0, 8, abi.encodePacked(treePath(leaves, 0)))), "nor above");
    }

    function test_only_the_forms_that_there_are() public {
        IAuditCourt.Receipt memory r = receiptOf(0);
        bytes32 digest = court.receiptDigest(r);
        bytes memory alone = sign65(HOST_KEY, court.sheafDigest(digest, 1));
        vm.assertTrue(!_try(r, _with(alone, 0, 1, "")), "a sheaf of one is a receipt that is signed alone");
        vm.assertTrue(!_try(r, alone), "and not so");
        vm.assertTrue(!_try(r, _with(sign65(HOST_KEY, court.sheafDigest(digest, 0)), 0, 0, "")), "a sheaf of none");
        bytes memory both = sign65(HOST_KEY, digest);
        for (uint256 size = 0; size <= 480; ++size) {
            if (size == 65) continue;
            bytes memory padded = new bytes(size);
            for (uint256 i = 0; i < size && i < 65; ++i) {
                padded[i] = both[i];
            }
            vm.assertTrue(!_try(r, padded), "a good signature with something behind it, or less of it");
        }
        vm.assertTrue(_try(r, both), "alone");
    }

    function test_a_tree_of_more_than_1024_is_none() public {
        IAuditCourt.Receipt memory r = receiptOf(0);
        bytes32 node = court.receiptDigest(r);
        bytes memory path;
        for (uint256 i = 0; i < 10; ++i) {
            path = bytes.concat(path, keccak256(abi.encode(i)));
            node = treeNode(node, keccak256(abi.encode(i)));
        }
        bytes memory last = bytes.concat(keccak256("an eleventh level"));
        bytes32 higher = treeNode(node, bytes32(last));
        bytes memory signed = sign65(HOST_KEY, court.sheafDigest(higher, 1025));
        vm.assertTrue(!_try(r, _with(signed, 0, 1025, bytes.concat(path, last))), "1,025");
        signed = sign65(HOST_KEY, court.sheafDigest(node, 1024));
        vm.assertTrue(_try(r, _with(signed, 0, 1024, path)), "1,024");
    }

    function test_only_the_hosts_own_signature_for_this_court_in_its_one_form() public {
        bytes32[] memory leaves = _leaves(3);
        bytes32 root = treeRoot(leaves, 0, 3);
        bytes memory path = abi.encodePacked(treePath(leaves, 1));
        bytes32 digest = court.sheafDigest(root, 3);
        IAuditCourt.Receipt memory r = receiptOf(1);
        vm.assertTrue(!_try(r, _with(sign65(0x999, digest), 1, 3, path)), "a stranger's");
        vm.assertTrue(!_try(r, _with(sign65(HOST_KEY, root), 1, 3, path)), "over the bare root");
        vm.assertTrue(!_try(r, _with(sign65(HOST_KEY, lineage_(root)), 1, 3, path)), "for another contract");
        (uint8 v, bytes32 x, bytes32 s) = vm.sign(HOST_KEY, digest);
        vm.assertTrue(!_try(r, _with(abi.encodePacked(x, s, v ^ 7), 1, 3, path)), "the other parity");
        bytes32 high = bytes32(ORDER - uint256(s));
        vm.assertTrue(uint256(high) > HALF_ORDER, "the twin is in the upper half");
        vm.assertTrue(!_try(r, _with(abi.encodePacked(x, high, v ^ 7), 1, 3, path)), "its malleable twin");
        IAuditCourt.Receipt memory nobodys = receiptOf(1);
        nobodys.host = address(0);
        vm.assertTrue(!_try(nobodys, _with(new bytes(65), 1, 3, path)), "nobody's");
        vm.assertTrue(_try(r, _with(abi.encodePacked(x, s, v), 1, 3, path)), "its own");
    }

    /// @dev The same struct for a verifier of another address.
    function lineage_(bytes32 root) private view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Lading"),
                keccak256("1"),
                block.chainid,
                address(settlement)
            )
        );
        bytes32 struct_ = keccak256(abi.encode(keccak256("Sheaf(bytes32 root,uint32 count)"), root, uint32(3)));
        return keccak256(abi.encodePacked(hex"1901", separator, struct_));
    }

    function test_bound_anchored_and_alone_it_is_the_same_dispute() public {
        bytes32[] memory leaves = _leaves(5);
        bytes memory signed = sign65(HOST_KEY, court.sheafDigest(treeRoot(leaves, 0, 5), 5));
        IAuditCourt.Receipt memory r = receiptOf(4);
        bytes memory signature = _with(signed, 4, 5, abi.encodePacked(treePath(leaves, 4)));
        bytes32 leaf = sha256(bytes.concat(abi.encode(r), signature));
        vm.prank(host);
        court.anchor(leaf, 1);
        bytes32 id = court.disputeId(host, r.job, 1, challenger);
        uint256 fork = vm.snapshotState();
        vm.prank(challenger);
        court.openAnchored(r, signature, leaf, 0, new bytes32[](0));
        vm.revertToState(fork);
        vm.assertTrue(_try(r, signature), "bound");
        vm.assertEq(court.disputes(id).subject, court.receiptDigest(r), "the receipt's digest");
        bytes memory alone = sign65(HOST_KEY, court.receiptDigest(r));
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(IAuditCourt.AlreadyOpened.selector, id));
        court.open(r, alone);
        rule(id, 3, GUILTY);
        pastAppeal(id);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed for what it bound");
    }
}
