// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAuditCourt} from "../src/interfaces/IAuditCourt.sol";
import {TreeKit} from "./TreeKit.sol";

/// @notice Receipts under a root that their host anchored: for every size of tree each leaf opens, and nothing else does.
contract AnchorsTest is TreeKit {
    bytes private constant GARBAGE =
        hex"00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000ff";

    function setUp() public {
        deployAll();
        enrol(3);
    }

    function _leaf(IAuditCourt.Receipt memory r, bytes memory signature) private pure returns (bytes32) {
        return sha256(bytes.concat(abi.encode(r), signature));
    }

    function _leaves(uint256 count) private view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint256 n = 0; n < count; ++n) {
            leaves[n] = _leaf(receiptOf(n), GARBAGE);
        }
    }

    function _anchored(uint256 count) private returns (bytes32[] memory leaves, bytes32 root) {
        leaves = _leaves(count);
        root = treeRoot(leaves, 0, count);
        vm.prank(host);
        court.anchor(root, uint32(count));
    }

    /// @dev As the challenger; whether it opened.
    function _try(IAuditCourt.Receipt memory r, bytes32 root, uint256 index, bytes32[] memory path)
        private
        returns (bool)
    {
        bytes memory call_ = abi.encodeCall(court.openAnchored, (r, GARBAGE, root, index, path));
        vm.prank(challenger);
        (bool ok, bytes memory reason) = address(court).call(call_);
        vm.assertTrue(ok || bytes4(reason) == IAuditCourt.NotAnchored.selector, "refused for the right reason");
        return ok;
    }

    function test_every_leaf_of_every_small_tree_opens_and_no_other_index_or_path_does() public {
        for (uint256 count = 1; count <= 33; ++count) {
            (bytes32[] memory leaves, bytes32 root) = _anchored(count);
            uint256 fork = vm.snapshotState();
            for (uint256 n = 0; n < count; ++n) {
                bytes32[] memory path = treePath(leaves, n);
                IAuditCourt.Receipt memory r = receiptOf(n);
                vm.assertTrue(!_try(r, root, n + 1, path), "the next index");
                vm.assertTrue(!_try(r, root, n ^ 1, path) || count == 1, "the sibling's index");
                vm.assertTrue(!_try(r, root, n + 64, path), "an index past the tree");
                vm.assertTrue(!_try(receiptOf(n + 1), root, n, path), "another receipt");
                vm.assertTrue(!_try(r, root, n, _longer(path)), "a longer path");
                if (path.length != 0) vm.assertTrue(!_try(r, root, n, _shorter(path)), "a shorter path");
                vm.assertTrue(_try(r, root, n, path), "the leaf");
            }
            vm.revertToState(fork);
        }
    }

    function _longer(bytes32[] memory path) private pure returns (bytes32[] memory more) {
        more = new bytes32[](path.length + 1);
        for (uint256 i = 0; i < path.length; ++i) {
            more[i] = path[i];
        }
    }

    function _shorter(bytes32[] memory path) private pure returns (bytes32[] memory fewer) {
        fewer = new bytes32[](path.length - 1);
        for (uint256 i = 0; i < fewer.length; ++i) {
            fewer[i] = path[i];
        }
    }

    /// forge-config: default.fuzz.runs = 256
    /// forge-config: long.fuzz.runs = 10000
    function test_a_wrong_count_moves_no_leaf_to_another_place(uint8 real, uint8 said, uint8 at, uint8 index) public {
        uint256 count = bound(real, 1, 33);
        uint256 claimed = bound(said, 1, 33);
        bytes32[] memory leaves = _leaves(count);
        bytes32 root = treeRoot(leaves, 0, count);
        vm.prank(host);
        court.anchor(root, uint32(claimed));
        uint256 n = bound(at, 0, count - 1);
        uint256 i = bound(index, 0, 40);
        bool opened = _try(receiptOf(n), root, i, treePath(leaves, n));
        if (count == claimed) vm.assertTrue(opened == (i == n), "its own place and no other");
        if (i >= claimed) vm.assertTrue(!opened, "past the claimed end");
    }

    /// @notice With a count that is too small an inner node sits where a leaf should. It is the hash of 65 bytes that begin with 1;
    /// a leaf is the hash of 673, so no receipt has its hash.
    function test_no_inner_node_passes_for_a_leaf() public {
        bytes32[] memory leaves = _leaves(4);
        bytes32 root = treeRoot(leaves, 0, 4);
        vm.prank(host);
        court.anchor(root, 2);
        bytes32[] memory path = new bytes32[](1);
        path[0] = treeNode(leaves[2], leaves[3]);
        vm.assertTrue(!_try(receiptOf(0), root, 0, path), "a leaf is not its parent");
        eq(abi.encode(receipt()).length + GARBAGE.length, 673, "the length of every leaf");
        vm.prank(challenger);
        vm.expectRevert(IAuditCourt.BadReceipt.selector);
        court.openAnchored(receiptOf(0), hex"01", root, 0, path);
    }

    function test_only_the_hosts_own_anchor_counts_and_its_first() public {
        bytes32[] memory leaves = _leaves(5);
        bytes32 root = treeRoot(leaves, 0, 5);
        court.anchor(root, 5);
        vm.assertTrue(!_try(receiptOf(0), root, 0, treePath(leaves, 0)), "somebody else's anchor");
        uint256 first = vm.getBlockTimestamp();
        vm.prank(host);
        court.anchor(root, 5);
        skip(7);
        vm.prank(host);
        court.anchor(root, 4);
        (uint40 anchoredAt, uint32 count) = court.anchorOf(host, root);
        eq(anchoredAt, first, "the first stays");
        eq(count, 5, "the first stays");
        vm.assertTrue(_try(receiptOf(0), root, 0, treePath(leaves, 0)), "and opens");
    }

    function test_anchors_count() public {
        eq(court.anchor(keccak256("root"), 5), 0, "first");
        vm.expectEmit(true, true, true, true, address(court));
        emit IAuditCourt.Anchored(address(this), 1, keccak256("root 2"), 6);
        eq(court.anchor(keccak256("root 2"), 6), 1, "second");
        eq(court.anchors(), 2, "two");
    }

    function test_a_root_of_nothing_opens_nothing() public {
        vm.prank(host);
        court.anchor(0, 0);
        vm.assertTrue(!_try(receiptOf(0), 0, 0, new bytes32[](0)), "no leaf");
        vm.assertTrue(!_try(receiptOf(0), keccak256("never anchored"), 0, new bytes32[](0)), "no root");
    }

    function test_an_anchored_dispute_is_the_same_dispute_as_a_signed_one() public {
        (bytes32[] memory leaves, bytes32 root) = _anchored(3);
        bytes32[] memory path = treePath(leaves, 2);
        vm.assertTrue(_try(receiptOf(2), root, 2, path), "anchored");
        bytes memory signature = sign65(HOST_KEY, court.receiptDigest(receiptOf(2)));
        bytes32 id = court.disputeId(host, receiptOf(2).job, 1, challenger);
        vm.expectRevert(abi.encodeWithSelector(IAuditCourt.AlreadyOpened.selector, id));
        vm.prank(challenger);
        court.open(receiptOf(2), signature);
        vm.assertEq(court.disputes(id).subject, court.receiptDigest(receiptOf(2)), "the receipt's digest");
        rule(id, 3, GUILTY);
        pastAppeal(id);
        court.execute(id);
        eq(staking.slashable(host), HOST_STAKE / 2, "slashed for what it anchored");
    }
}
