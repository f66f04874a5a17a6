// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {IPayments} from "../../src/interfaces/IPayments.sol";
import {IPromotionAuctions} from "../../src/interfaces/IPromotionAuctions.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {Puppet, TricksterCoin} from "../market/Accomplices.sol";
import {MarketKit} from "../market/MarketKit.sol";

/// @notice Does anything that owners, bidders, tenants, hosts, the governor, the courts and passers-by may do, in any order and at any
/// time, with a coin that freezes people and lets an accomplice call back in. Calls that the contracts refuse are part of it.
contract MarketHandler is MarketKit {
    struct ShareBid {
        bytes32 id;
        address who;
        uint16 bps;
    }

    struct PromotionBid {
        uint32 epoch;
        uint8 slot;
        address who;
        uint96 amount;
    }

    uint256 private constant BIDDERS = 5;
    uint256 private constant LEASES = 24;
    bytes32 private constant ROOT = keccak256("root");

    TricksterCoin public trickster;
    Puppet public puppet;
    address[] public actors;
    bytes32[] public auctionIds;
    uint256[] public slotKeys;
    bytes32[] public leaseIds;
    ShareBid[] private shareBids;
    PromotionBid[] private promotionBids;
    mapping(uint256 key => bool) private knownSlot;
    mapping(bytes32 id => uint32) private servedBefore;

    /// @notice What must never happen, in words; empty while all is well.
    string public wrong;
    uint256 public settledShares;
    uint256 public settledSlots;
    uint256 public endedLeases;

    constructor() {
        trickster = new TricksterCoin(1e10 * uint256(COIN));
        deployMarketOn(trickster);
        for (uint256 i = 0; i < BIDDERS; ++i) {
            actors.push(bidder(i));
            fund(bidder(i), 100_000 * COIN);
        }
        puppet = new Puppet(tenant);
        fund(address(puppet), 100_000 * COIN);
        actors.push(address(puppet));
        address[5] memory others = [tenant, host, COLD, MAKER, ANCESTOR];
        for (uint256 i = 0; i < others.length; ++i) {
            actors.push(others[i]);
        }
        fund(COLD, 100_000 * COIN);
        skip(1);
        vm.prank(MAKER);
        registry.register(ROOT, 0, 0);
        trickster.setHook(puppet);
    }

    // ---- time, parameters, courts, the coin

    function pass(uint256 seed) external {
        uint256 here = vm.getBlockTimestamp();
        uint32 epoch = shares.currentEpoch() + 1;
        if (seed % 4 == 0) vm.warp(here + bound(seed >> 8, 1, 4 hours));
        else if (here < commitEnds(epoch)) vm.warp(commitEnds(epoch));
        else vm.warp(startOf(epoch));
    }

    /// @dev The governor writes parameters. The staking court jails or lets out. The lineage court adopts, once: then the table of
    /// ROOT pays its parent nothing.
    function govern(uint256 seed) external {
        if (seed % 8 == 0) {
            try registry.adopt(ROOT, PARENT) {} catch {}
        } else if (seed % 8 == 1) {
            try staking.jail(host, uint40(vm.getBlockTimestamp() + bound(seed >> 8, 1, EPOCH))) {} catch {}
        } else if (seed % 8 < 4) {
            try staking.unjail(host) {} catch {}
        } else {
            _setParameters(seed >> 8);
        }
    }

    function _setParameters(uint256 seed) private {
        IParameters.MarketParams memory params = marketParams();
        params.shareDeposit = uint96(bound(seed, SHARE_DEPOSIT / 10, 10 * SHARE_DEPOSIT));
        params.promotionDeposit = uint96(bound(seed >> 16, PROMOTION_DEPOSIT / 10, 10 * PROMOTION_DEPOSIT));
        params.promotionReserve = uint96(bound(seed >> 32, RESERVE / 10, 10 * RESERVE));
        params.promotionSlots = uint8(bound(seed >> 48, 1, 4));
        params.lineageBps = uint16(bound(seed >> 64, 0, 5_000));
        try parameters.setMarket(params) {} catch {}
    }

    /// @dev The coin freezes or thaws somebody; somebody collects what waited; the accomplice gets something new to do from inside the
    /// next transfers.
    function trick(uint256 seed) external {
        if (seed % 4 == 0) trickster.freeze(_actor(seed >> 8), true);
        else if (seed % 4 == 1) trickster.freeze(_actor(seed >> 8), false);
        else if (seed % 4 == 2) _collectUnpaid(seed >> 8);
        else _arm(seed >> 8);
    }

    function _arm(uint256 seed) private {
        uint256 choice = seed % 6;
        seed >>= 8;
        if (choice == 0) puppet.disarm();
        else if (choice == 1) puppet.arm(_market(seed), abi.encodeCall(IPayments.collectUnpaid, (address(puppet))));
        else if (choice == 2 && slotKeys.length != 0) puppet.arm(address(promotions), _settleSlot(seed));
        else if (choice == 3 && auctionIds.length != 0) puppet.arm(address(shares), _settleShares(seed));
        else if (leaseIds.length != 0) puppet.arm(address(leases), abi.encodeCall(ILeases.finish, (_lease(seed))));
    }

    function _collectUnpaid(uint256 seed) private {
        address payee = _actor(seed >> 8);
        vm.prank(payee);
        try IPayments(_market(seed)).collectUnpaid(address(0x5AFE)) {} catch {}
    }

    // ---- share auctions

    function _openShare(uint256 seed) private {
        uint8[4] memory roles = [HOSTS, OEMS, CURATORS, 3];
        uint32 epoch = shares.currentEpoch() + 1;
        bytes32 agent = seed & 1 == 0 ? AGENT : ROOT;
        uint8 seats = uint8(bound(seed >> 8, 1, 8));
        uint16 reserve = uint16(bound(seed >> 16, 1, 1_200));
        vm.prank(MAKER);
        try shares.open(agent, epoch, roles[seed >> 1 & 3], seats, reserve, _base(agent), 0, new bytes[](0)) returns (
            bytes32 id
        ) {
            auctionIds.push(id);
        } catch {}
    }

    /// @dev Opens an auction if it can, then each bidder whose bit is set seals a bid.
    function commitShare(uint256 seed) external {
        _openShare(seed >> 128);
        if (auctionIds.length == 0) return;
        bytes32 id = auctionIds[auctionIds.length - 1];
        for (uint256 i = 0; i <= BIDDERS; ++i) {
            if (seed >> i & 1 == 0) continue;
            // One more than the reserve, now and then: such a bid cannot be opened.
            uint256 bps = bound(seed >> (8 + 16 * i), 1, uint256(shares.auctions(id).reserveBps) + 1);
            ShareBid memory bid = ShareBid(id, actors[i], uint16(bps));
            bytes32 seal = shares.sealOf(id, bid.who, bid.bps, SALT);
            vm.prank(bid.who);
            try shares.commit(id, seal) {
                shareBids.push(bid);
            } catch {}
        }
    }

    /// @dev Some of the last bids, in any order. Somebody else tries first with what the bidder is about to show.
    function revealShare(uint256 seed) external {
        if (shareBids.length != 0) _until(seed, commitEnds(shares.auctions(shareBids[shareBids.length - 1].id).epoch));
        for (uint256 i = 0; i < 4 && shareBids.length != 0; ++i) {
            ShareBid memory bid = shareBids[shareBids.length - 1 - (seed >> (16 * i)) % _latest(shareBids.length)];
            IAgentRegistry.Party[] memory base = _base(shares.auctions(bid.id).agent);
            address thief = _bidder(seed >> (16 * i + 8));
            vm.prank(thief);
            try shares.reveal(bid.id, bid.bps, SALT, base) {
                if (thief != bid.who && !_sealedTheSame(bid, thief)) wrong = "a bid was opened by another";
            } catch {}
            vm.prank(bid.who);
            try shares.reveal(bid.id, bid.bps, SALT, base) {} catch {}
        }
    }

    function settleShare(uint256 seed) external {
        if (auctionIds.length == 0) return;
        bytes32 id = auctionIds[auctionIds.length - 1 - seed % _latest(auctionIds.length)];
        _until(seed, startOf(shares.auctions(id).epoch));
        _settleAuction(id);
    }

    // ---- promotion auctions

    /// @dev Each bidder whose bit is set, on one slot.
    function commitPromotion(uint256 seed) external {
        uint32 epoch = promotions.currentEpoch() + 1;
        uint8 slot = uint8(seed >> 8) % 4;
        for (uint256 i = 0; i <= BIDDERS; ++i) {
            if (seed >> i & 1 == 0) continue;
            PromotionBid memory bid = PromotionBid(epoch, slot, actors[i], _amount(seed >> (16 + 16 * i)));
            bytes32 seal = promotions.sealOf(epoch, slot, bid.who, AGENT, bid.amount, SALT);
            vm.prank(bid.who);
            try promotions.commit(epoch, slot, seal) {
                promotionBids.push(bid);
                uint256 key = uint256(epoch) << 8 | slot;
                if (!knownSlot[key]) slotKeys.push(key);
                knownSlot[key] = true;
            } catch {}
        }
    }

    function revealPromotion(uint256 seed) external {
        if (promotionBids.length != 0) _until(seed, commitEnds(promotionBids[promotionBids.length - 1].epoch));
        for (uint256 i = 0; i < 4 && promotionBids.length != 0; ++i) {
            uint256 back = (seed >> (16 * i)) % _latest(promotionBids.length);
            PromotionBid memory bid = promotionBids[promotionBids.length - 1 - back];
            uint96 priceBefore = promotions.slots(bid.epoch, bid.slot).price;
            vm.prank(bid.who);
            try promotions.reveal(bid.epoch, bid.slot, AGENT, bid.amount, SALT) {
                if (promotions.slots(bid.epoch, bid.slot).price < priceBefore) wrong = "a price fell";
            } catch {}
        }
    }

    function settlePromotion(uint256 seed) external {
        if (slotKeys.length == 0) return;
        uint256 key = slotKeys[slotKeys.length - 1 - seed % _latest(slotKeys.length)];
        _until(seed, startOf(uint32(key >> 8)));
        try promotions.settle(uint32(key >> 8), uint8(key)) {
            ++settledSlots;
        } catch {}
    }

    // ---- leases

    function bidLease(uint256 seed) external {
        if (leaseIds.length == LEASES) return;
        ILeases.Request memory asked = request();
        if (seed & 1 == 0) asked.host = address(0);
        asked.duration = uint32(bound(seed >> 8, 1, 4 hours));
        asked.rate = uint96(bound(seed >> 32, 1, 1e12));
        asked.hostBond = uint96(bound(seed >> 96, 0, COIN));
        asked.tenantBond = uint96(bound(seed >> 128, 0, COIN));
        vm.prank(seed & 2 == 0 ? tenant : address(puppet));
        try leases.bid(asked) returns (bytes32 id) {
            leaseIds.push(id);
            if (seed & 12 != 0) _accept(id, seed & 4 == 0 ? host : COLD);
        } catch {}
    }

    function _accept(bytes32 id, address by) private {
        vm.prank(by);
        try leases.accept(id, host) {} catch {}
    }

    /// @dev The puppet's master is the tenant's key: one signature fits both, but not each other's leases.
    function collectLease(uint256 seed) external {
        if (leaseIds.length == 0) return;
        bytes32 id = _lease(seed);
        ILeases.Lease memory lease = leases.leases(id);
        if (lease.state == ILeases.State.None || lease.duration == 0) return;
        uint32 served = uint32(bound(seed >> 8, 1, uint256(lease.duration) + 1));
        _until(seed, uint256(lease.start) + served);
        try leases.collect(id, served, signServed(id, served)) {
            bool inTime = served <= lease.duration && uint256(lease.start) + served <= vm.getBlockTimestamp();
            if (!inTime || served <= servedBefore[id]) wrong = "seconds were paid twice or before they ran";
            servedBefore[id] = served;
        } catch {}
    }

    function endLease(uint256 seed) external {
        if (leaseIds.length == 0) return;
        bytes32 id = _lease(seed >> 8);
        address who = leases.leases(id).tenant;
        if (seed % 4 == 0) {
            if (seed & 16 == 0) _accept(id, host);
            vm.prank(who);
            try leases.cancel(id) {} catch {}
        } else if (seed % 4 == 1) {
            vm.prank(who);
            try leases.vacate(id) {} catch {}
        } else if (seed % 4 == 2) {
            vm.prank(host);
            try leases.quit(id) {} catch {}
        } else {
            try leases.finish(id) {
                ++endedLeases;
            } catch {}
        }
    }

    // ---- books

    function owedByShares() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(shares));
        owed = _unpaid(shares);
        for (uint256 i = 0; i < auctionIds.length; ++i) {
            IShareAuctions.Auction memory a = shares.auctions(auctionIds[i]);
            if (a.state == IShareAuctions.State.Open) owed += uint256(a.committed - a.revealed) * a.deposit;
        }
    }

    function owedByPromotions() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(promotions));
        owed = _unpaid(promotions);
        for (uint256 i = 0; i < slotKeys.length; ++i) {
            IPromotionAuctions.Slot memory s = promotions.slots(uint32(slotKeys[i] >> 8), uint8(slotKeys[i]));
            if (s.settled) continue;
            owed += uint256(s.committed - s.revealed) * parameters.marketAt(s.version).promotionDeposit + s.best;
        }
    }

    function owedByLeases() external view returns (uint256 held, uint256 owed) {
        held = coin.balanceOf(address(leases));
        owed = _unpaid(leases);
        for (uint256 i = 0; i < leases.count(); ++i) {
            ILeases.Lease memory l = leases.leases(leases.leaseId(i));
            if (l.state == ILeases.State.Ended) continue;
            owed += uint256(l.rate) * l.slots * (l.duration - l.served) + l.tenantBond;
            if (l.state != ILeases.State.Bid) owed += l.hostBond;
        }
    }

    /// @notice Whether every slot's price lies between its version's reserve and the best bid.
    function pricesAreRight() external view returns (bool) {
        for (uint256 i = 0; i < slotKeys.length; ++i) {
            IPromotionAuctions.Slot memory s = promotions.slots(uint32(slotKeys[i] >> 8), uint8(slotKeys[i]));
            if (s.price < parameters.marketAt(s.version).promotionReserve) return false;
            if (s.winner != address(0) && s.price > s.best) return false;
        }
        return true;
    }

    /// @notice All deadlines pass, everybody does what is left to do, the coin freezes nobody any more.
    function windUp() external {
        puppet.disarm();
        for (uint256 i = 0; i < actors.length; ++i) {
            trickster.freeze(actors[i], false);
        }
        skip(30 days);
        for (uint256 i = 0; i < auctionIds.length; ++i) {
            _settleAuction(auctionIds[i]);
        }
        for (uint256 i = 0; i < slotKeys.length; ++i) {
            try promotions.settle(uint32(slotKeys[i] >> 8), uint8(slotKeys[i])) {} catch {}
        }
        for (uint256 i = 0; i < leases.count(); ++i) {
            bytes32 id = leases.leaseId(i);
            address who = leases.leases(id).tenant;
            vm.prank(who);
            try leases.cancel(id) {} catch {}
            try leases.finish(id) {} catch {}
        }
        for (uint256 i = 0; i < 3 * actors.length; ++i) {
            vm.prank(actors[i / 3]);
            try IPayments(_market(i)).collectUnpaid(address(0x5AFE)) {} catch {}
        }
    }

    // ---- choices

    function _settleAuction(bytes32 id) private {
        IShareAuctions.Auction memory a = shares.auctions(id);
        IAgentRegistry.Party[] memory base = _base(a.agent);
        try shares.settle(id, base) returns (bytes32 terms) {
            ++settledShares;
            if (terms != 0) _checkTable(a, base, terms);
        } catch {}
    }

    /// @dev What the parties get in all does not depend on the bids; with hosts it is what the reserve leaves at least.
    function _checkTable(IShareAuctions.Auction memory a, IAgentRegistry.Party[] memory base, bytes32 terms) private {
        uint256 sum = 0;
        for (uint256 i = 0; i < base.length; ++i) {
            sum += base[i].bps;
        }
        (, uint16 royaltyBps,,,) = registry.terms(terms);
        bool right = a.role == HOSTS
            ? royaltyBps >= 10_000 - a.reserveBps && royaltyBps < 10_000
            : royaltyBps == sum + uint256(a.seats) * a.reserveBps;
        if (!right) wrong = "the shares do not sum to what was put up";
    }

    function _amount(uint256 seed) private pure returns (uint96) {
        return uint96(bound(seed, 1, 60)) * COIN;
    }

    function _settleSlot(uint256 seed) private view returns (bytes memory) {
        uint256 key = slotKeys[seed % slotKeys.length];
        return abi.encodeCall(IPromotionAuctions.settle, (uint32(key >> 8), uint8(key)));
    }

    function _settleShares(uint256 seed) private view returns (bytes memory) {
        bytes32 id = auctionIds[seed % auctionIds.length];
        return abi.encodeCall(IShareAuctions.settle, (id, _base(shares.auctions(id).agent)));
    }

    function _base(bytes32 agent) private pure returns (IAgentRegistry.Party[] memory table) {
        if (agent != ROOT) return baseTable();
        table = new IAgentRegistry.Party[](1);
        table[0] = IAgentRegistry.Party(MAKER, 1, 1_000);
    }

    function _sealedTheSame(ShareBid memory bid, address who) private view returns (bool) {
        for (uint256 i = 0; i < shareBids.length; ++i) {
            ShareBid memory other = shareBids[i];
            if (other.id == bid.id && other.who == who && other.bps == bid.bps) return true;
        }
        return false;
    }

    function _unpaid(IPayments market) private view returns (uint256 sum) {
        for (uint256 i = 0; i < actors.length; ++i) {
            sum += market.unpaid(actors[i]);
        }
    }

    /// @dev Half of the calls wait for the moment at which they make sense.
    function _until(uint256 seed, uint256 moment) private {
        if (seed >> 255 == 0 && vm.getBlockTimestamp() < moment) vm.warp(moment);
    }

    function _actor(uint256 seed) private view returns (address) {
        return actors[seed % actors.length];
    }

    function _bidder(uint256 seed) private view returns (address) {
        return actors[seed % (BIDDERS + 1)];
    }

    function _lease(uint256 seed) private view returns (bytes32) {
        return leaseIds[seed % leaseIds.length];
    }

    function _market(uint256 seed) private view returns (address) {
        address[3] memory markets = [address(shares), address(promotions), address(leases)];
        return markets[seed % 3];
    }

    /// @dev Old bids cannot be opened any more: most calls should go to the last few.
    function _latest(uint256 count) private pure returns (uint256) {
        return count < 6 ? count : 6;
    }
}
