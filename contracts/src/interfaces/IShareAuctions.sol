// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "./IAgentRegistry.sol";
import {IEpochs} from "./IEpochs.sol";
import {IPayments} from "./IPayments.sol";

/// @title Who gets which share of an agent's revenue, by auction
/// @notice The owner of an agent opens one role for one epoch: `seats` seats at `reserveBps` of the revenue each, at most. Bids are
/// sealed, in basis points; the lowest win; every winner gets the same share, that of the lowest bid that won no seat (the
/// reserve when there was none): so bidding what one needs is best, whatever the others do. What the auction saved goes to
/// party 0 of the base table. The result is agreed as the agent's terms of that epoch, and they sunset when it ends.
interface IShareAuctions is IEpochs, IPayments {
    enum State {
        None,
        Open,
        Settled,
        Void
    }

    /// @notice `base` is the terms id of the base table. Role 0 is the host: then winners are admitted hosts, and their share is
    /// what the table leaves; other roles as in the registry. `deposit` is what a bid costs until it is opened.
    struct Auction {
        State state;
        uint8 role;
        uint8 seats;
        uint16 reserveBps;
        uint32 epoch;
        uint32 committed;
        uint32 revealed;
        uint96 deposit;
        bytes32 agent;
        bytes32 base;
    }

    /// @notice A bid that was opened. `order` counts the sealed bids: of equal bids the earlier one wins.
    struct Bid {
        address bidder;
        uint16 bps;
        uint32 order;
    }

    /// @notice Only the owner of the agent opens its roles.
    error NotOwner(address caller);
    /// @notice One auction an agent and epoch.
    error AlreadyOpen(bytes32 id);
    /// @notice The base table, the role, the seats (1 to 8) or the reserve make no table, whoever wins.
    error BadAuction();
    /// @notice The auction is not open, or the table is not the one it was opened with.
    error WrongAuction(bytes32 id);
    /// @notice A bidder seals one bid; parties of the base table in the same role cannot bid.
    error BidTaken(address bidder);
    /// @notice The opening does not match the seal, or there is none.
    error BadReveal();
    /// @notice A bid is at least 1 basis point and at most the reserve.
    error OverReserve(uint16 reserveBps);

    event AuctionOpened(
        bytes32 indexed id,
        bytes32 indexed agent,
        uint32 indexed epoch,
        uint8 role,
        uint8 seats,
        uint16 reserveBps,
        uint96 deposit,
        IAgentRegistry.Party[] base
    );
    event ShareSealed(bytes32 indexed id, address indexed bidder, uint32 order);
    event ShareRevealed(bytes32 indexed id, address indexed bidder, uint16 bps);
    /// @notice `terms` are the agent's terms of the epoch; `forfeited` deposits of bids that stayed sealed were destroyed.
    event AuctionSettled(
        bytes32 indexed id, bytes32 indexed terms, uint16 clearingBps, address[] winners, uint256 forfeited
    );
    /// @notice There are no terms of the epoch: nobody opened a bid, nobody settled before the epoch was over, or the registry takes
    /// the table no more (the agent has sunset, or was put under a parent whom the table pays too little).
    event AuctionVoid(bytes32 indexed id, uint256 forfeited);

    /// @notice Opens `role` of the caller's agent for `epoch`, which must not have begun its last third of bidding. The base table
    /// needs the consents that the registry asks for (see `IAgentRegistry.agreeTerms`); party 0 may end with more, never less.
    function open(
        bytes32 agent,
        uint32 epoch,
        uint8 role,
        uint8 seats,
        uint16 reserveBps,
        IAgentRegistry.Party[] calldata base,
        uint40 deadline,
        bytes[] calldata consents
    ) external returns (bytes32 id);

    /// @notice Seals the caller's bid, with the flat deposit (needs an allowance), until `commitEnds(epoch)`.
    function commit(bytes32 id, bytes32 seal) external;

    /// @notice Opens the caller's bid and returns its deposit, until `startOf(epoch)`.
    function reveal(bytes32 id, uint16 bps, bytes32 salt, IAgentRegistry.Party[] calldata base) external;

    /// @notice Agrees the terms of the epoch; anyone may send, with the base table. Deposits of sealed bids are destroyed.
    function settle(bytes32 id, IAgentRegistry.Party[] calldata base) external returns (bytes32 terms);

    // ---- views

    function auctions(bytes32 id) external view returns (Auction memory);
    /// @notice The opened bids that could still win, lowest first: at most `seats + 1`, the last of them sets the price.
    function leading(bytes32 id) external view returns (Bid[] memory);
    /// @notice The order of a sealed bid counted from 1, zero if there is none, and whether it was opened.
    function bidOf(bytes32 id, address bidder) external view returns (uint32 order, bool revealed);
    /// @notice The terms that an auction made for the epoch; zero if none did.
    function termsOf(bytes32 agent, uint32 epoch) external view returns (bytes32);
    /// @notice Hosts admitted by an auction of role 0, or the winners of any other.
    function winnersOf(bytes32 id) external view returns (address[] memory);
    function auctionId(bytes32 agent, uint32 epoch) external pure returns (bytes32);
    /// @notice keccak256(abi.encode(chain id, this contract, id, bidder, bps, salt)).
    function sealOf(bytes32 id, address bidder, uint16 bps, bytes32 salt) external view returns (bytes32);
}
