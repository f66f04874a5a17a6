// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {IPayments} from "../../src/interfaces/IPayments.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {IPromotionAuctions} from "../../src/interfaces/IPromotionAuctions.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {Puppet, TricksterCoin} from "./Accomplices.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice A coin that lets an accomplice back in while it moves. In every verb that moves coins the accomplice does the verb once
/// more: that must fail, and nobody else's coins may be gone.
contract MarketReentrancyTest is MarketKit {
    TricksterCoin private trickster;
    Puppet private puppet;
    uint256 private had;

    function setUp() public {
        trickster = new TricksterCoin(1e10 * uint256(COIN));
        deployMarketOn(trickster);
        puppet = new Puppet(tenant);
        had = 1_000 * uint256(COIN);
        coin.transfer(address(puppet), had);
        address[3] memory spenders = [address(shares), address(promotions), address(leases)];
        for (uint256 i = 0; i < 3; ++i) {
            puppet.run(address(coin), abi.encodeCall(IERC20.approve, (spenders[i], type(uint256).max)));
        }
        fund(bidder(0), had);
        trickster.setHook(puppet);
    }

    /// @dev Does the verb, and from within it once more.
    function _twice(address target, bytes memory data) private returns (bytes memory answer) {
        uint256 strikes = puppet.strikes();
        puppet.arm(target, data);
        answer = puppet.run(target, data);
        puppet.disarm();
        vm.assertTrue(puppet.strikes() > strikes, "the coin let it back in");
        eq(puppet.landed(), 0, "the verb went through twice");
    }

    function _puppetHas(uint256 amount, string memory why) private view {
        eq(coin.balanceOf(address(puppet)), amount, why);
    }

    // ---- share auctions

    function _shareSeal(bytes32 id, uint16 bps) private view returns (bytes memory) {
        return abi.encodeCall(IShareAuctions.commit, (id, shares.sealOf(id, address(puppet), bps, SALT)));
    }

    function test_attack_reentrant_coin_in_every_verb_of_a_share_auction() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        sealShare(id, bidder(0), 100);
        _twice(address(shares), _shareSeal(id, 200));
        eq(shares.auctions(id).committed, 2, "one bid each");
        toReveals();
        _twice(address(shares), abi.encodeCall(IShareAuctions.reveal, (id, 200, SALT, baseTable())));
        _puppetHas(had, "one deposit back");
        eq(coin.balanceOf(address(shares)), SHARE_DEPOSIT, "the other one stays");
        toSettling();
        _twice(address(shares), abi.encodeCall(IShareAuctions.settle, (id, baseTable())));
        eq(coin.balanceOf(address(shares)), 0, "destroyed once");
    }

    function test_attack_reentrant_coin_in_collecting_what_was_unpaid() public {
        bytes32 id = openShares(CURATORS, 2, 400);
        sealShare(id, bidder(0), 100);
        puppet.run(address(shares), _shareSeal(id, 200));
        toReveals();
        trickster.freeze(address(puppet), true);
        puppet.run(address(shares), abi.encodeCall(IShareAuctions.reveal, (id, 200, SALT, baseTable())));
        trickster.freeze(address(puppet), false);
        _twice(address(shares), abi.encodeCall(IPayments.collectUnpaid, (address(puppet))));
        _puppetHas(had, "once");
        eq(coin.balanceOf(address(shares)), SHARE_DEPOSIT, "the other one stays");
    }

    // ---- promotion auctions

    function _promotionSeal(uint96 amount) private view returns (bytes memory) {
        bytes32 seal = promotions.sealOf(NEXT, 0, address(puppet), AGENT, amount, SALT);
        return abi.encodeCall(IPromotionAuctions.commit, (NEXT, 0, seal));
    }

    function _promotionReveal(uint96 amount) private view returns (bytes memory) {
        return abi.encodeCall(IPromotionAuctions.reveal, (NEXT, 0, AGENT, amount, SALT));
    }

    function test_attack_reentrant_coin_in_every_verb_of_a_promotion_auction_by_the_winner() public {
        sealPromotion(0, bidder(0), AGENT, 20 * COIN);
        sealPromotion(1, bidder(0), AGENT, 20 * COIN);
        _twice(address(promotions), _promotionSeal(50 * COIN));
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 20 * COIN);
        revealPromotion(1, bidder(0), AGENT, 20 * COIN);
        _twice(address(promotions), _promotionReveal(50 * COIN));
        _puppetHas(had - 50 * COIN, "paid once, one deposit back");
        toSettling();
        _twice(address(promotions), abi.encodeCall(IPromotionAuctions.settle, (NEXT, 0)));
        _puppetHas(had - 20 * COIN, "the second price");
        eq(coin.balanceOf(address(promotions)), 20 * COIN, "the other slot's best bid stays");
    }

    function test_attack_reentrant_coin_in_showing_a_second_price() public {
        sealPromotion(0, bidder(0), AGENT, 80 * COIN);
        puppet.run(address(promotions), _promotionSeal(50 * COIN));
        toReveals();
        revealPromotion(0, bidder(0), AGENT, 80 * COIN);
        _twice(address(promotions), _promotionReveal(50 * COIN));
        _puppetHas(had, "shown, given back, one deposit");
        eq(coin.balanceOf(address(promotions)), 80 * COIN, "the best bid stays");
    }

    /// @dev A deposit comes in while another is still coming: one transfer cannot count for two.
    function test_attack_reentrant_coin_pays_in_twice_with_one_transfer() public {
        puppet.arm(address(promotions), _promotionSeal(50 * COIN));
        bytes32 seal = promotions.sealOf(NEXT, 1, address(puppet), AGENT, 50 * COIN, SALT);
        puppet.run(address(promotions), abi.encodeCall(IPromotionAuctions.commit, (NEXT, 1, seal)));
        puppet.disarm();
        uint256 bids = promotions.slots(NEXT, 0).committed + promotions.slots(NEXT, 1).committed;
        eq(coin.balanceOf(address(promotions)), bids * PROMOTION_DEPOSIT, "a deposit for each bid");
    }

    // ---- leases

    function _lease() private returns (bytes32 id) {
        id = abi.decode(puppet.run(address(leases), abi.encodeCall(ILeases.bid, (request()))), (bytes32));
    }

    function _escrow(bytes32 id) private view returns (uint256) {
        ILeases.Lease memory lease = leases.leases(id);
        return uint256(lease.rate) * lease.slots * (lease.duration - lease.served) + lease.tenantBond + lease.hostBond;
    }

    /// @dev A second lease, of somebody else, is what a thief could take from.
    function test_attack_reentrant_coin_in_every_verb_of_a_lease_by_the_tenant() public {
        bytes32 other = running();
        bytes memory bid = abi.encodeCall(ILeases.bid, (request()));
        puppet.arm(address(leases), bid);
        bytes32 id = abi.decode(puppet.run(address(leases), bid), (bytes32));
        puppet.disarm();
        eq(coin.balanceOf(address(leases)), _escrow(other) + _escrow(id) - 1_001, "every bid is paid for");
        _twice(address(leases), abi.encodeCall(ILeases.cancel, (id)));
        _puppetHas(had, "back once");
        id = _lease();
        vm.prank(host);
        leases.accept(id, host);
        skip(1 hours + 600);
        _twice(address(leases), abi.encodeCall(ILeases.collect, (id, 600, signServed(id, 600))));
        puppet.run(address(leases), abi.encodeCall(ILeases.vacate, (id)));
        skip(1 days);
        _twice(address(leases), abi.encodeCall(ILeases.finish, (id)));
        eq(coin.balanceOf(address(leases)), _escrow(other), "the other lease's coins stay");
    }

    function test_attack_reentrant_coin_in_every_verb_of_a_lease_by_the_host() public {
        bytes32 other = running();
        coin.approve(address(staking), type(uint256).max);
        puppet.run(address(coin), abi.encodeCall(IERC20.approve, (address(staking), type(uint256).max)));
        puppet.run(address(staking), abi.encodeCall(staking.stake, (address(puppet), MIN_STAKE, bytes(""))));
        had -= MIN_STAKE;
        ILeases.Request memory asked = request();
        asked.host = address(puppet);
        vm.prank(tenant);
        bytes32 id = leases.bid(asked);
        _twice(address(leases), abi.encodeCall(ILeases.accept, (id, address(puppet))));
        _puppetHas(had - 1_001, "one bond");
        _twice(address(leases), abi.encodeCall(ILeases.quit, (id)));
        _puppetHas(had - 1_001, "all of it lost");
        eq(coin.balanceOf(address(leases)), _escrow(other), "the other lease's coins stay");
    }
}
