// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MoneyKit} from "./MoneyKit.sol";
import {Vm} from "./Vm.sol";
import {PlainSettlement} from "./twin/PlainSettlement.sol";

/// @notice The packed loops against a twin in plain Solidity, on the same random batches: the same answers, events and books.
contract TwinTest is MoneyKit {
    uint256 private constant SIGNERS = 4;
    uint256 private constant STEPS = 8;
    bytes32 private constant UNKNOWN = keccak256("nobody agreed this");
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    PlainSettlement private twin;
    address[SIGNERS] private signers;
    uint256 private seed;
    /// @dev The last good row of each kind: later it is stale.
    bytes private lastRow;

    function setUp() public {
        deployMoney();
        twin = new PlainSettlement(settlement, registry);
        for (uint256 i = 0; i < SIGNERS; ++i) {
            signers[i] = vm.addr(_key(i));
        }
        for (uint256 i = 0; i < 3; ++i) {
            fund(signers[i], 30 * COIN);
            twin.credit(signers[i], 30 * COIN);
        }
    }

    function _key(uint256 i) private pure returns (uint256) {
        return 0x900 + i;
    }

    function _random(uint256 n) private returns (uint256) {
        seed = uint256(keccak256(abi.encode(seed)));
        return seed % n;
    }

    function test_the_packed_loops_are_the_plain_ones(uint256 seed_) public {
        seed = seed_;
        for (uint256 step = 0; step < STEPS; ++step) {
            _disturb();
            bytes32 under = _random(16) == 0 ? UNKNOWN : terms;
            uint32 epoch = uint32(_random(2));
            uint256 verb = _random(3);
            bytes memory data = verb == 0
                ? abi.encodeCall(settlement.lock, (host, under, epoch, _batch(under, epoch, true)))
                : verb == 1
                    ? abi.encodeCall(settlement.redeem, (host, under, epoch, _batch(under, epoch, false)))
                    : abi.encodeCall(
                        settlement.lockAndRedeem,
                        (host, under, epoch, _batch(under, epoch, true), _batch(under, epoch, false))
                    );
            _same(data);
        }
        _sameBooks();
    }

    function _same(bytes memory data) private {
        vm.recordLogs();
        (bool ok, bytes memory answer) = address(settlement).call(data);
        Vm.Log[] memory packed = vm.getRecordedLogs();
        (bool plainOk, bytes memory plainAnswer) = address(twin).call(data);
        Vm.Log[] memory plain = vm.getRecordedLogs();
        vm.assertTrue(ok == plainOk, "both or neither");
        vm.assertEq(keccak256(answer), keccak256(plainAnswer), "the same reason");
        eq(packed.length, plain.length, "as many events");
        for (uint256 i = 0; i < packed.length; ++i) {
            vm.assertEq(
                keccak256(abi.encode(packed[i].topics, packed[i].data)),
                keccak256(abi.encode(plain[i].topics, plain[i].data)),
                "the same event"
            );
        }
    }

    function _sameBooks() private view {
        for (uint256 i = 0; i < SIGNERS; ++i) {
            eq(freeOf(signers[i]), twin.free(signers[i]), "free");
            vm.assertEq(_hash(settlement.sessions, signers[i]), _hash(twin.sessions, signers[i]), "session");
            for (uint32 epoch = 0; epoch < 2; ++epoch) {
                bytes32 id = settlement.channelId(signers[i], host, terms, epoch);
                (uint96 locked, uint96 redeemed,, bool via, bool dead) = settlement.channels(id);
                (uint96 locked2, uint96 redeemed2,, bool via2, bool dead2) = twin.channels(id);
                vm.assertEq(
                    keccak256(abi.encode(locked, redeemed, via, dead)),
                    keccak256(abi.encode(locked2, redeemed2, via2, dead2)),
                    "channel"
                );
            }
        }
        eq(settlement.hostBalance(host), twin.hostBalance(host), "host");
        eq(settlement.gross(terms), twin.gross(terms), "gross");
    }

    function _hash(function(address) external view returns (address, uint96, uint96, uint40) read, address key)
        private
        view
        returns (bytes32)
    {
        (address owner, uint96 cap, uint96 locked, uint40 expiry) = read(key);
        return keccak256(abi.encode(owner, cap, locked, expiry));
    }

    /// @dev Money, a session key over a signer that may have channels of its own, a close, time: in both alike.
    function _disturb() private {
        uint256 what = _random(6);
        if (what == 0) {
            uint96 amount = uint96(1 + _random(20 * COIN));
            fund(signers[_random(3)], amount);
            twin.credit(signers[seed % 3], amount);
        } else if (what == 1) {
            uint96 cap = uint96(_random(30 * COIN));
            uint40 expiry = uint40(vm.getBlockTimestamp() + _random(200));
            address key = signers[2 + _random(2)];
            bytes memory consent = sign65(_key(key == signers[2] ? 2 : 3), settlement.sessionConsentDigest(signers[0]));
            vm.prank(signers[0]);
            settlement.authorize(key, cap, expiry, consent);
            twin.authorize(signers[0], key, cap, expiry);
        } else if (what == 2) {
            _close(signers[_random(SIGNERS)], uint32(_random(2)));
        } else if (what == 3) {
            skip(_random(150));
        }
    }

    function _close(address signer, uint32 epoch) private {
        bytes32 id = settlement.channelId(signer, host, terms, epoch);
        (uint96 locked,,, bool via, bool dead) = settlement.channels(id);
        if (locked == 0 || dead) return;
        vm.prank(via ? settlement.payerOf(signer) : signer);
        settlement.startClose(signer, host, terms, epoch);
        skip(CLOSE_DELAY);
        settlement.finishClose(signer, host, terms, epoch);
        twin.close(signer, host, terms, epoch);
    }

    function _batch(bytes32 under, uint32 epoch, bool asLock) private returns (bytes memory rows) {
        uint256 n = _random(6);
        for (uint256 i = 0; i < n; ++i) {
            rows = bytes.concat(rows, _row(under, epoch, asLock));
        }
        if (_random(20) == 0) rows = bytes.concat(rows, new bytes(1 + _random(75)));
    }

    function _row(bytes32 under, uint32 epoch, bool asLock) private returns (bytes memory made) {
        uint256 kind = _random(12);
        if (kind == 0) return _garbage();
        if (kind == 1 && lastRow.length != 0) return lastRow;
        uint96 sum = uint96(_random(asLock ? 40 * COIN : 25 * COIN));
        if (kind == 2) sum = uint96(_random(3) == 0 ? 0 : type(uint96).max - _random(2));
        bytes32 digest = kind == 3 || asLock
            ? settlement.lockDigest(host, under, epoch, sum)
            : settlement.voucherDigest(host, under, kind == 4 ? epoch + 1 : epoch, sum);
        made = row(_key(_random(SIGNERS)), sum, digest);
        if (kind == 5) made[_random(76)] ^= bytes1(uint8(1 << _random(8)));
        if (kind == 6) return _highS(made);
        lastRow = made;
    }

    function _garbage() private returns (bytes memory) {
        bytes32 r = bytes32(_random(type(uint256).max));
        return abi.encodePacked(uint96(_random(COIN)), _random(3) == 0 ? bytes32(0) : r, bytes32(_random(3)));
    }

    /// @dev With an s around half of the order, which is the highest that a compact signature may carry and be good.
    function _highS(bytes memory made) private returns (bytes memory) {
        bytes32 s = bytes32(HALF_ORDER - 1 + _random(3));
        for (uint256 i = 0; i < 32; ++i) {
            made[44 + i] = s[i];
        }
        return made;
    }
}
