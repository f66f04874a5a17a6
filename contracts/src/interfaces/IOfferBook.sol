// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ISettlement} from "./ISettlement.sol";

/// @title Signed offers on the chain, for hosts that want them there
/// @notice Offers travel off chain and cost nothing; a voucher carries the amount, so none is ever filled here. What the chain adds:
/// a place to show one to everybody, and the floor below which a host's older offers are void, wherever they travel.
interface IOfferBook {
    /// @notice The host did not sign this offer (for the settlement contract, on this chain).
    error BadOffer(address host);
    /// @notice The offer has expired.
    error OfferExpired(uint64 expires);
    /// @notice The offer's sequence lies below the host's floor.
    error BelowFloor(uint64 floor);
    /// @notice A floor only rises.
    error FloorNotRaised(uint64 floor);

    /// @notice `id` is the offer's EIP-712 digest.
    event OfferPublished(bytes32 indexed id, address indexed host, bytes32 indexed agent, ISettlement.Offer offer);
    /// @notice All offers of `host` with a lower sequence are void.
    event FloorRaised(address indexed host, uint64 floor);

    /// @notice Shows an offer to everybody; anyone may send it. `signature` is the host's: 65 bytes, or whatever its contract
    /// accepts (ERC-1271).
    function publish(ISettlement.Offer calldata offer, bytes calldata signature) external returns (bytes32 id);

    /// @notice Voids every offer of the caller whose sequence is lower than `floor`.
    function raiseFloor(uint64 floor) external;

    function settlement() external view returns (ISettlement);
    function floorOf(address host) external view returns (uint64);
    /// @notice Whether the offer is signed by its host, not expired, and not below the floor.
    function isLive(ISettlement.Offer calldata offer, bytes calldata signature) external view returns (bool);
}
