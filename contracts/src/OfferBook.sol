// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Signatures} from "./Signatures.sol";
import {IOfferBook} from "./interfaces/IOfferBook.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";

/// @title Signed offers on the chain, for hosts that want them there
/// @notice Holds no money and stores one number a host. What an offer hashes to is the settlement contract's word.
contract OfferBook is IOfferBook {
    /// @inheritdoc IOfferBook
    ISettlement public immutable settlement;
    /// @inheritdoc IOfferBook
    mapping(address host => uint64) public floorOf;

    constructor(ISettlement settlement_) {
        settlement = settlement_;
    }

    /// @inheritdoc IOfferBook
    function publish(ISettlement.Offer calldata offer, bytes calldata signature) external returns (bytes32 id) {
        require(block.timestamp < offer.expires, OfferExpired(offer.expires));
        require(offer.sequence >= floorOf[offer.host], BelowFloor(floorOf[offer.host]));
        id = settlement.offerDigest(offer);
        require(Signatures.isFrom(offer.host, id, signature), BadOffer(offer.host));
        emit OfferPublished(id, offer.host, offer.agent, offer);
    }

    /// @inheritdoc IOfferBook
    function raiseFloor(uint64 floor) external {
        require(floor > floorOf[msg.sender], FloorNotRaised(floorOf[msg.sender]));
        floorOf[msg.sender] = floor;
        emit FloorRaised(msg.sender, floor);
    }

    /// @inheritdoc IOfferBook
    function isLive(ISettlement.Offer calldata offer, bytes calldata signature) external view returns (bool) {
        if (block.timestamp >= offer.expires || offer.sequence < floorOf[offer.host]) return false;
        return Signatures.isFrom(offer.host, settlement.offerDigest(offer), signature);
    }
}
