// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Coins} from "./Coins.sol";
import {Payments} from "./Payments.sol";
import {Signatures} from "./Signatures.sol";
import {ILeases} from "./interfaces/ILeases.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {IStaking} from "./interfaces/IStaking.sol";

/// @title Reserved capacity, paid as it is served
/// @notice Holds, of every lease that has not ended, the price of what is not served and both bonds. Every verb writes its books
/// before it moves a coin.
contract Leases is EIP712, Payments, ILeases {
    using Coins for IERC20;

    /// @dev A lease in four slots. `deadline` is the second before which a bid must be accepted, then the one before which the last
    /// signatures of a lease that its tenant left must be landed. `ownerPaid` says who paid the host's bond: the operator
    /// or its owner, who is its owner for ever.
    struct Book {
        address tenant;
        uint96 rate;
        address host;
        uint96 hostBond;
        uint96 tenantBond;
        State state;
        bool ownerPaid;
        uint16 slots;
        uint32 start;
        uint32 duration;
        uint32 served;
        uint32 deadline;
        bytes32 agent;
    }

    enum Fault {
        Nobody,
        Host,
        Tenant,
        Unclear
    }

    bytes32 public constant SERVED_TYPEHASH = keccak256("Served(bytes32 lease,uint32 served)");
    /// @dev Time to land the last signatures before the money is divided.
    uint256 private constant GRACE = 1 days;

    IStaking public immutable staking;
    ISettlement public immutable settlement;
    /// @inheritdoc ILeases
    uint256 public count;

    mapping(bytes32 id => Book) private _books;

    constructor(IERC20 coin_, IStaking staking_, ISettlement settlement_) EIP712("Lading", "1") Payments(coin_) {
        staking = staking_;
        settlement = settlement_;
    }

    /// @inheritdoc ILeases
    function bid(Request calldata request) external returns (bytes32 id) {
        uint256 price = _priceOf(request);
        id = leaseId(count++);
        Book memory book = Book({
            tenant: msg.sender,
            rate: request.rate,
            host: request.host,
            hostBond: request.hostBond,
            tenantBond: request.tenantBond,
            state: State.Bid,
            ownerPaid: false,
            slots: uint16(request.slots),
            start: uint32(request.start),
            duration: request.duration,
            served: 0,
            deadline: uint32(request.acceptBy),
            agent: request.agent
        });
        _books[id] = book;
        emit LeaseBid(id, msg.sender, request.host, _lease(book));
        coin.pull(msg.sender, price + request.tenantBond);
    }

    /// @inheritdoc ILeases
    function cancel(bytes32 id) external {
        Book memory book = _inState(id, State.Bid);
        require(book.tenant == msg.sender, NotParty(msg.sender));
        _books[id].state = State.Ended;
        emit LeaseCancelled(id);
        _send(msg.sender, _costOf(book, book.duration) + book.tenantBond);
    }

    /// @inheritdoc ILeases
    function accept(bytes32 id, address operator) external {
        Book memory book = _inState(id, State.Bid);
        require(block.timestamp < book.deadline, TooLate(book.deadline));
        require(book.host == address(0) || book.host == operator, NotParty(operator));
        _requireHost(operator);
        require(staking.isActive(operator), NotActive(operator));
        (book.host, book.state, book.ownerPaid) = (operator, State.Running, msg.sender != operator);
        _books[id] = book;
        emit LeaseAccepted(id, operator);
        coin.pull(msg.sender, book.hostBond);
    }

    /// @inheritdoc ILeases
    function collect(bytes32 id, uint32 served, bytes calldata signature) external {
        Book memory book = _books[id];
        uint256 until = block.timestamp;
        if (book.state == State.Vacated) {
            require(until < book.deadline, TooLate(book.deadline));
            until = book.deadline - GRACE;
        } else {
            require(book.state == State.Running, WrongState(book.state));
        }
        require(served > book.served && served <= book.duration, BadServed(served));
        require(uint256(book.start) + served <= until, BadServed(served));
        require(Signatures.isFrom(book.tenant, servedDigest(id, served), signature), BadServed(served));
        _books[id].served = served;
        uint256 amount = _costOf(book, served - book.served);
        emit LeaseServed(id, served, amount);
        _send(settlement.payoutOf(book.host), amount);
    }

    /// @inheritdoc ILeases
    function quit(bytes32 id) external {
        Book memory book = _inState(id, State.Running);
        _requireHost(book.host);
        _end(id, book, Fault.Host);
    }

    /// @inheritdoc ILeases
    function vacate(bytes32 id) external {
        Book storage book = _books[id];
        require(book.state == State.Running, WrongState(book.state));
        require(book.tenant == msg.sender, NotParty(msg.sender));
        uint256 payAt = block.timestamp + GRACE;
        book.state = State.Vacated;
        book.deadline = uint32(payAt);
        emit LeaseVacated(id, uint40(payAt));
    }

    /// @inheritdoc ILeases
    function finish(bytes32 id) external {
        Book memory book = _books[id];
        bool vacated = book.state == State.Vacated;
        require(vacated || book.state == State.Running, WrongState(book.state));
        if (book.served == book.duration) return _end(id, book, Fault.Nobody);
        uint256 ripe = vacated ? book.deadline : uint256(book.start) + book.duration + GRACE;
        require(block.timestamp >= ripe, TooEarly(ripe));
        _end(id, book, vacated ? Fault.Tenant : Fault.Unclear);
    }

    /// @inheritdoc ILeases
    function leases(bytes32 id) external view returns (Lease memory) {
        return _lease(_books[id]);
    }

    /// @inheritdoc ILeases
    function leaseId(uint256 n) public view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), n));
    }

    /// @inheritdoc ILeases
    function servedDigest(bytes32 id, uint32 served) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(SERVED_TYPEHASH, id, served)));
    }

    /// @dev Divides what is left: the price of what was not served goes back, each bond goes back to who paid it but for the part at
    /// fault, which is in proportion to what was not served.
    function _end(bytes32 id, Book memory book, Fault fault) private {
        _books[id].state = State.Ended;
        uint256 unserved = book.duration - book.served;
        uint256 refunded = _costOf(book, unserved);
        bool hostLoses = fault == Fault.Host || fault == Fault.Unclear;
        bool tenantLoses = fault == Fault.Tenant || fault == Fault.Unclear;
        uint256 hostPart = hostLoses ? book.hostBond * unserved / book.duration : 0;
        uint256 tenantPart = tenantLoses ? book.tenantBond * unserved / book.duration : 0;
        (uint256 penalty, uint256 destroyed) =
            fault == Fault.Unclear ? (uint256(0), hostPart + tenantPart) : (hostPart + tenantPart, uint256(0));
        emit LeaseEnded(id, uint8(fault), refunded, penalty, destroyed);
        uint256 toTenant = refunded + book.tenantBond - tenantPart;
        if (fault == Fault.Host) toTenant += penalty;
        _send(book.tenant, toTenant);
        _send(_bondPayer(book), book.hostBond - hostPart);
        if (fault == Fault.Tenant) _send(settlement.payoutOf(book.host), penalty);
        coin.destroy(destroyed);
    }

    /// @dev The times fit 32 bits and the price 96, whatever the request.
    function _priceOf(Request calldata request) private view returns (uint256 price) {
        price = uint256(request.rate) * request.slots * request.duration;
        bool sound = price != 0 && price <= type(uint96).max && request.slots <= type(uint16).max
            && request.acceptBy <= request.start && request.start <= type(uint32).max;
        require(sound, BadLease());
        require(block.timestamp < request.acceptBy, TooLate(request.acceptBy));
    }

    function _costOf(Book memory book, uint256 seconds_) private pure returns (uint256) {
        return uint256(book.rate) * book.slots * seconds_;
    }

    function _inState(bytes32 id, State state) private view returns (Book memory book) {
        book = _books[id];
        require(book.state == state, WrongState(book.state));
    }

    function _requireHost(address operator) private view {
        require(msg.sender == operator || msg.sender == staking.ownerOf(operator), NotParty(msg.sender));
    }

    function _bondPayer(Book memory book) private view returns (address) {
        return book.ownerPaid ? staking.ownerOf(book.host) : book.host;
    }

    function _lease(Book memory book) private view returns (Lease memory) {
        bool accepted = book.state != State.Bid && book.host != address(0);
        return Lease({
            state: book.state,
            tenant: book.tenant,
            host: book.host,
            slots: book.slots,
            start: book.start,
            duration: book.duration,
            served: book.served,
            acceptBy: book.deadline,
            rate: book.rate,
            hostBond: book.hostBond,
            tenantBond: book.tenantBond,
            bondPayer: accepted ? _bondPayer(book) : address(0),
            agent: book.agent
        });
    }
}
