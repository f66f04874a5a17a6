// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IOfferBook} from "../../src/interfaces/IOfferBook.sol";
import {ISettlement} from "../../src/interfaces/ISettlement.sol";
import {Puppet} from "./Accomplices.sol";
import {MarketKit} from "./MarketKit.sol";

contract OfferBookTest is MarketKit {
    function setUp() public {
        deployMarket();
    }

    function _offer(address by) private view returns (ISettlement.Offer memory offer) {
        offer.host = by;
        offer.agent = AGENT;
        offer.priceIn = 5;
        offer.priceOut = 15;
        offer.slots = 2;
        offer.sequence = 7;
        offer.expires = uint64(vm.getBlockTimestamp() + 60);
    }

    function _sign(ISettlement.Offer memory offer) private view returns (bytes memory) {
        return sign65(HOST_KEY, settlement.offerDigest(offer));
    }

    function test_anyone_publishes_what_the_host_signed() public {
        ISettlement.Offer memory offer = _offer(host);
        bytes32 id = settlement.offerDigest(offer);
        vm.expectEmit(true, true, true, true, address(book));
        emit IOfferBook.OfferPublished(id, host, AGENT, offer);
        vm.assertEq(book.publish(offer, _sign(offer)), id, "id");
        vm.assertTrue(book.isLive(offer, _sign(offer)), "live");
    }

    function test_a_price_that_the_host_did_not_sign_is_not_published() public {
        ISettlement.Offer memory offer = _offer(host);
        bytes memory signature = _sign(offer);
        offer.priceOut = 1;
        vm.assertTrue(!book.isLive(offer, signature), "changed");
        vm.expectRevert(abi.encodeWithSelector(IOfferBook.BadOffer.selector, host));
        book.publish(offer, signature);
    }

    function test_an_offer_ends_with_its_second() public {
        ISettlement.Offer memory offer = _offer(host);
        bytes memory signature = _sign(offer);
        vm.warp(offer.expires - 1);
        book.publish(offer, signature);
        vm.warp(offer.expires);
        vm.assertTrue(!book.isLive(offer, signature), "over");
        vm.expectRevert(abi.encodeWithSelector(IOfferBook.OfferExpired.selector, offer.expires));
        book.publish(offer, signature);
    }

    function test_an_offer_below_the_floor_is_void_and_the_floor_only_rises() public {
        ISettlement.Offer memory offer = _offer(host);
        bytes memory signature = _sign(offer);
        vm.prank(host);
        book.raiseFloor(7);
        vm.assertTrue(book.isLive(offer, signature), "at the floor");
        vm.prank(host);
        book.raiseFloor(8);
        vm.assertTrue(!book.isLive(offer, signature), "below");
        vm.expectRevert(abi.encodeWithSelector(IOfferBook.BelowFloor.selector, 8));
        book.publish(offer, signature);
        vm.prank(host);
        vm.expectRevert(abi.encodeWithSelector(IOfferBook.FloorNotRaised.selector, 8));
        book.raiseFloor(8);
    }

    function test_another_host_cannot_raise_my_floor() public {
        ISettlement.Offer memory offer = _offer(host);
        vm.prank(MAKER);
        book.raiseFloor(type(uint64).max);
        vm.assertTrue(book.isLive(offer, _sign(offer)), "live");
        eq(book.floorOf(host), 0, "floor");
    }

    function test_a_contract_signs_its_offers_as_it_likes() public {
        Puppet wallet = new Puppet(host);
        ISettlement.Offer memory offer = _offer(address(wallet));
        bytes memory signature = _sign(offer);
        book.publish(offer, signature);
        wallet.silence();
        vm.expectRevert(abi.encodeWithSelector(IOfferBook.BadOffer.selector, address(wallet)));
        book.publish(offer, signature);
    }

    function test_an_offer_signed_for_another_chain_is_void() public {
        ISettlement.Offer memory offer = _offer(host);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        bytes memory elsewhere = _sign(offer);
        vm.chainId(here);
        vm.assertTrue(!book.isLive(offer, elsewhere), "other chain");
    }
}
