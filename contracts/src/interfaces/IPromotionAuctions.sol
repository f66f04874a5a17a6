// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IEpochs} from "./IEpochs.sol";
import {IPayments} from "./IPayments.sol";

/// @title Which agents the index shows first, by auction
/// @notice Sealed second price, a slot and an epoch at a time: the highest bid wins and pays the second highest, or the reserve. Of
/// what it pays a part goes to the owner of the promoted agent's parent and the rest is destroyed: nobody earns by promoting.
interface IPromotionAuctions is IEpochs, IPayments {
    /// @notice Frozen when the first bid on the slot is sealed. `winner` is zero while nobody opened a bid of at least the reserve.
    /// `price` is what the winner pays if nothing changes: the second highest bid, at least the reserve.
    struct Slot {
        bool settled;
        uint32 version;
        uint32 committed;
        uint32 revealed;
        address winner;
        uint96 best;
        uint96 price;
        uint32 bestOrder;
        bytes32 agent;
    }

    /// @notice There are `slots` slots, counted from 0.
    error NoSuchSlot(uint8 slots);
    /// @notice A bidder seals one bid a slot and epoch.
    error BidTaken(address bidder);
    /// @notice The opening does not match the seal, or there is none.
    error BadReveal();
    /// @notice Nobody registered this agent, or it has sunset.
    error UnknownAgent(bytes32 agent);
    /// @notice Nothing to settle: no bid was sealed, or it is settled already.
    error NothingToSettle(uint32 epoch, uint8 slot);

    event PromotionSealed(uint32 indexed epoch, uint8 indexed slot, address indexed bidder, uint32 order);
    event PromotionRevealed(
        uint32 indexed epoch, uint8 indexed slot, address indexed bidder, bytes32 agent, uint96 amount
    );
    /// @notice `price` = `toLineage` + `destroyed`; `forfeited` deposits of bids that stayed sealed were destroyed too.
    /// `agent` is zero when nobody won.
    event Promoted(
        uint32 indexed epoch,
        uint8 indexed slot,
        bytes32 indexed agent,
        address winner,
        uint96 price,
        uint96 toLineage,
        uint96 destroyed,
        uint256 forfeited
    );

    /// @notice Seals the caller's bid for `slot` of `epoch`, with the flat deposit (needs an allowance).
    function commit(uint32 epoch, uint8 slot, bytes32 seal) external;

    /// @notice Opens it: takes `amount` (needs an allowance), gives the deposit back, and pays back whoever is beaten. A bid
    /// that cannot be paid cannot be opened.
    function reveal(uint32 epoch, uint8 slot, bytes32 agent, uint96 amount, bytes32 salt) external;

    /// @notice Charges the winner the price and gives it back the rest; anyone may send, once the epoch has begun.
    function settle(uint32 epoch, uint8 slot) external;

    // ---- views

    function slots(uint32 epoch, uint8 slot) external view returns (Slot memory);
    /// @notice The order of a sealed bid counted from 1, zero if there is none, and whether it was opened.
    function bidOf(uint32 epoch, uint8 slot, address bidder) external view returns (uint32 order, bool revealed);
    /// @notice The agents promoted in `epoch`, by slot; zero where nobody won. Final once the epoch has begun.
    function promoted(uint32 epoch) external view returns (bytes32[] memory agents);
    /// @notice keccak256(abi.encode(chain id, this contract, epoch, slot, bidder, agent, amount, salt)).
    function sealOf(uint32 epoch, uint8 slot, address bidder, bytes32 agent, uint96 amount, bytes32 salt)
        external
        view
        returns (bytes32);
}
