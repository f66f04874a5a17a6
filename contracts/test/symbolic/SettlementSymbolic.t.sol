// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Rows} from "../../src/Rows.sol";
import {Vm} from "../Vm.sol";

/// @notice The packed loops over books of their own, with any words in them. The solver chooses who signed: `ecrecover` of
/// symbolic bytes is any address.
contract Loops {
    struct Book {
        uint256 account;
        uint256 session;
        uint256 spent;
    }

    mapping(address => Book) public books;
    mapping(bytes32 id => uint256) public channels;

    function set(bytes32 id, uint256 word) external {
        channels[id] = word;
    }

    function setBook(address who, uint256 account, uint256 session, uint256 spent) external {
        books[who] = Book(account, session, spent);
    }

    function redeem(address host, bytes32 terms, uint32 epoch, bytes calldata rows)
        external
        returns (uint256 total, uint256 moved)
    {
        uint256 form = Rows.prepare(bytes32(uint256(1)), bytes32(uint256(2)), host, terms, epoch);
        uint256 slot;
        assembly ("memory-safe") {
            slot := channels.slot
        }
        return Rows.redeem(form, rows, slot);
    }

    function lock(address host, bytes32 terms, uint32 epoch, bytes calldata rows) external returns (uint256) {
        uint256 form = Rows.prepare(bytes32(uint256(1)), bytes32(uint256(2)), host, terms, epoch);
        uint256 row;
        uint256 slot;
        assembly ("memory-safe") {
            row := rows.offset
            slot := books.slot
        }
        return Rows.lock(form, row, row + rows.length, slot);
    }
}

/// @notice For the solver, not for forge: each `check_` holds for every input there is. One row at a time; a batch is rows in
/// sequence, each of which finds the books as the one before left them.
contract SettlementSymbolic {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    uint256 private constant VIA_SESSION = 1 << 232;

    struct Row {
        address host;
        bytes32 terms;
        uint32 epoch;
        uint96 cumulative;
        bytes32 r;
        bytes32 vs;
    }

    /// @dev A session as the books hold it.
    struct Key {
        address payer;
        uint96 cap;
        uint96 used;
        uint40 expiry;
    }

    Loops private loops;

    function setUp() public {
        loops = new Loops();
    }

    /// @dev Zero for what the loops must not take.
    function _signer(Row memory row) private pure returns (address) {
        bytes32 content = keccak256(abi.encode(bytes32(uint256(2)), row.host, row.terms, row.epoch, row.cumulative));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", bytes32(uint256(1)), content));
        uint256 s = uint256(row.vs) & (type(uint256).max >> 1);
        if (s > HALF_ORDER) return address(0);
        return ecrecover(digest, uint8(27 + (uint256(row.vs) >> 255)), row.r, bytes32(s));
    }

    function _id(address signer, Row memory row) private pure returns (bytes32) {
        return keccak256(abi.encode(signer, row.host, row.terms, row.epoch));
    }

    function _packed(Row memory row) private pure returns (bytes memory) {
        return abi.encodePacked(row.cumulative, row.r, row.vs);
    }

    /// @notice A voucher moves min(cumulative, locked) - redeemed or nothing, and changes no other bit of its channel.
    function check_a_voucher_moves_no_more_than_its_lock(Row memory row, uint256 word) public {
        address signer = _signer(row);
        bytes32 id = _id(signer, row);
        (uint256 locked, uint256 redeemed) = (uint96(word), uint96(word >> 96));
        vm.assume(redeemed <= locked);
        loops.set(id, word);
        (uint256 total, uint256 moved) = loops.redeem(row.host, row.terms, row.epoch, _packed(row));
        uint256 limit = row.cumulative < locked ? row.cumulative : locked;
        uint256 expected = signer == address(0) || limit <= redeemed ? 0 : limit - redeemed;
        assert(total == expected);
        assert(total <= locked - redeemed);
        assert(moved == (total == 0 ? 0 : 1));
        assert(loops.channels(id) == word + (total << 96));
    }

    /// @notice A lock by the payer's own key: what leaves its free balance is what its channel gains, and nothing else changes.
    function check_a_lock_conserves_free_and_locked(Row memory row, uint256 word, uint256 account) public {
        address signer = _signer(row);
        bytes32 id = _id(signer, row);
        loops.set(id, word);
        loops.setBook(signer, account, 0, 0);
        uint256 moved = loops.lock(row.host, row.terms, row.epoch, _packed(row));
        (uint256 left,,) = loops.books(signer);
        uint256 gained = loops.channels(id) - word;
        assert(account - left == gained);
        assert(gained <= uint96(account));
        assert(gained == 0 || uint96(word) + gained <= row.cumulative);
        assert(gained == 0 || signer != address(0));
        assert(moved == (gained == 0 ? 0 : 1));
    }

    /// @notice A lock by a session key: payer, session and channel move by the same amount, and the session not over its cap.
    function check_a_session_lock_conserves_and_keeps_the_cap(
        Row memory row,
        Key memory key,
        uint96 locked,
        uint256 account
    ) public {
        address signer = _signer(row);
        vm.assume(key.payer != address(0) && key.payer != signer);
        bytes32 id = _id(signer, row);
        loops.set(id, locked == 0 ? 0 : locked | VIA_SESSION);
        loops.setBook(key.payer, account, 0, 0);
        loops.setBook(signer, 0, uint160(key.payer) | uint256(key.cap) << 160, key.used | uint256(key.expiry) << 96);
        loops.lock(row.host, row.terms, row.epoch, _packed(row));
        uint256 gained = uint96(loops.channels(id)) - locked;
        (uint256 left,,) = loops.books(key.payer);
        assert(account - left == gained);
        (,, left) = loops.books(signer);
        assert(left - (key.used | uint256(key.expiry) << 96) == gained);
        if (gained == 0) return;
        assert(key.used + gained <= key.cap && block.timestamp < key.expiry && signer != address(0));
        assert(loops.channels(id) == ((locked + gained) | VIA_SESSION));
    }
}
