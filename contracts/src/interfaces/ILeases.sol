// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPayments} from "./IPayments.sol";

/// @title Reserved capacity, paid as it is served
/// @notice A tenant bids for `slots` slots of an agent on a host from `start` for `duration` seconds, with the whole price and a bond in
/// escrow. A host that accepts adds its own bond. While it serves, the tenant signs how many seconds were served (cumulative,
/// like a voucher); each signature pays. What was not served is paid back, and its part of a bond is the penalty:
/// a host that quits pays it to the tenant, a tenant that leaves pays it to the host; when neither admits fault both parts
/// are destroyed, so nobody gains by lying about the other. A host that gets no signature stops reserving: it risks one interval.
interface ILeases is IPayments {
    enum State {
        None,
        Bid,
        Running,
        Ended,
        Vacated
    }

    /// @notice `rate` is wei per slot and second; `served` seconds were paid. `host` is zero while any active operator may accept.
    /// Once the tenant has left, `acceptBy` is the second before which its last signatures must be landed.
    struct Lease {
        State state;
        address tenant;
        address host;
        uint32 slots;
        uint40 start;
        uint32 duration;
        uint32 served;
        uint40 acceptBy;
        uint96 rate;
        uint96 hostBond;
        uint96 tenantBond;
        address bondPayer;
        bytes32 agent;
    }

    /// @notice What a tenant bids for. `host` zero means any active operator.
    struct Request {
        address host;
        bytes32 agent;
        uint32 slots;
        uint40 start;
        uint32 duration;
        uint96 rate;
        uint96 hostBond;
        uint96 tenantBond;
        uint40 acceptBy;
    }

    /// @notice Slots, duration or rate is zero, there are more than 65,535 slots, the lease starts before it must be accepted or
    /// after the year 2105, or the price does not fit 96 bits.
    error BadLease();
    /// @notice The lease is not in the state for this.
    error WrongState(State state);
    /// @notice Not this account's to do.
    error NotParty(address caller);
    /// @notice The operator is not active.
    error NotActive(address operator);
    /// @notice The tenant did not sign that many seconds, more are signed than the lease has run, or they were paid already.
    error BadServed(uint32 served);
    /// @notice Not before this second.
    error TooEarly(uint256 until);
    /// @notice Too late: the deadline was this second.
    error TooLate(uint256 deadline);

    event LeaseBid(bytes32 indexed id, address indexed tenant, address indexed host, Lease lease);
    event LeaseCancelled(bytes32 indexed id);
    event LeaseAccepted(bytes32 indexed id, address indexed host);
    /// @notice `served` seconds in all; `amount` was paid for the new ones.
    event LeaseServed(bytes32 indexed id, uint32 served, uint256 amount);
    /// @notice The tenant left: what it signed until now is still collected, the rest is divided from `payAt` on.
    event LeaseVacated(bytes32 indexed id, uint40 payAt);
    /// @notice How it ended. `fault`: 0 all was served, 1 the host quit, 2 the tenant left, 3 neither admitted it. `refunded` is the
    /// price of what was not served, back at the tenant; `penalty` went from the bond of who was at fault to the other. What
    /// is left of each bond went back to who had paid it.
    event LeaseEnded(bytes32 indexed id, uint8 fault, uint256 refunded, uint256 penalty, uint256 destroyed);

    /// @notice Bids for capacity: takes rate * slots * duration + tenantBond (needs an allowance).
    function bid(Request calldata request) external returns (bytes32 id);

    /// @notice Takes back a bid that nobody accepted, by the tenant.
    function cancel(bytes32 id) external;

    /// @notice Accepts for `operator`, by the operator or its owner, with the host's bond (needs an allowance).
    function accept(bytes32 id, address operator) external;

    /// @notice Pays the host for seconds that the tenant signed as served: Served(lease, served). Anyone may send, until the lease is
    /// ended; a host lands its last signature before it quits, and within a day after the lease has run out or was vacated.
    /// @param signature the tenant's: 65 bytes, or whatever its contract accepts (ERC-1271)
    function collect(bytes32 id, uint32 served, bytes calldata signature) external;

    /// @notice The host (operator or owner) gives up what is not yet served and pays the penalty to the tenant.
    function quit(bytes32 id) external;

    /// @notice The tenant gives up what is not yet served and pays the penalty to the host. Nothing that it has signed is void by
    /// that: the host has a day to land it, then `finish` divides the rest.
    function vacate(bytes32 id) external;

    /// @notice Ends a lease that has run out or was vacated, a day after that, or at once when all was served; anyone may send.
    function finish(bytes32 id) external;

    // ---- views

    function leases(bytes32 id) external view returns (Lease memory);
    /// @notice How many leases were ever bid for.
    function count() external view returns (uint256);
    /// @notice keccak256(abi.encode(chain id, this contract, n)) of the n-th lease, counted from 0.
    function leaseId(uint256 n) external view returns (bytes32);
    function servedDigest(bytes32 id, uint32 served) external view returns (bytes32);
}
