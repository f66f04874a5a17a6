// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {IShareAuctions} from "../../src/interfaces/IShareAuctions.sol";
import {MarketKit} from "./MarketKit.sol";

/// @notice The share auction against a plain one that sorts all bids, and what that one promises to bidders.
contract SharePricesTest is MarketKit {
    uint256 private constant BIDDERS = 12;

    /// @dev Bids in the order in which they were sealed; zero stayed sealed.
    struct Plan {
        uint8 seats;
        uint16 reserve;
        uint256[] bids;
    }

    function setUp() public {
        deployMarket();
        for (uint256 i = 0; i < BIDDERS; ++i) {
            fund(bidder(i), 10 * COIN);
        }
    }

    /// @dev Few different prices, so that many are equal; every fifth bid stays sealed.
    function _plan(uint256 seed) private pure returns (Plan memory plan) {
        plan.seats = uint8(bound(seed, 1, 8));
        plan.reserve = uint16(bound(seed >> 8, 1, 1_000));
        plan.bids = new uint256[](bound(seed >> 24, 0, BIDDERS));
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            uint256 word = uint256(keccak256(abi.encode(seed, i)));
            uint256 spread = seed >> 40 & 1 == 0 ? 5 : 1_000;
            plan.bids[i] = word % 5 == 0 ? 0 : bound(word >> 8, 1, spread < plan.reserve ? spread : plan.reserve);
        }
    }

    // ---- the plain auction

    /// @dev How many opened bids come before bid i: lower ones, and equal ones that were sealed earlier.
    function _before(uint256[] memory bids, uint256 i) private pure returns (uint256 count) {
        for (uint256 j = 0; j < bids.length; ++j) {
            if (bids[j] != 0 && (bids[j] < bids[i] || (bids[j] == bids[i] && j < i))) ++count;
        }
    }

    function _price(Plan memory plan) private pure returns (uint256) {
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            if (plan.bids[i] != 0 && _before(plan.bids, i) == plan.seats) return plan.bids[i];
        }
        return plan.reserve;
    }

    function _wins(Plan memory plan, uint256 i) private pure returns (bool) {
        return plan.bids[i] != 0 && _before(plan.bids, i) < plan.seats;
    }

    /// @dev Winners, best first.
    function _winners(Plan memory plan) private pure returns (address[] memory winners) {
        uint256 count = 0;
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            if (_wins(plan, i)) ++count;
        }
        winners = new address[](count);
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            if (_wins(plan, i)) winners[_before(plan.bids, i)] = bidder(i);
        }
    }

    /// @dev What a bidder with this cost gains, in basis points over its cost.
    function _gain(Plan memory plan, uint256 i, uint256 cost) private pure returns (int256) {
        return _wins(plan, i) ? int256(_price(plan)) - int256(cost) : int256(0);
    }

    // ---- the contract is that auction

    function _run(Plan memory plan, uint8 role, uint256 seed) private returns (bytes32 id, bytes32 terms) {
        id = openShares(role, plan.seats, plan.reserve);
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            sealShare(id, bidder(i), uint16(plan.bids[i]));
        }
        toReveals();
        uint256 first = seed >> 64;
        for (uint256 n = 0; n < plan.bids.length; ++n) {
            // Seven has no factor in common with a count that is not seven: every bid once, not as they were sealed.
            uint256 i = plan.bids.length == 7 ? n : (first % 7 + n * 7) % plan.bids.length;
            if (plan.bids[i] != 0) revealShare(id, bidder(i), uint16(plan.bids[i]));
        }
        toSettling();
        terms = shares.settle(id, baseTable());
    }

    function _sum(IAgentRegistry.Party[] memory table) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < table.length; ++i) {
            sum += table[i].bps;
        }
    }

    function testFuzz_curators_get_what_the_plain_auction_says_and_the_shares_always_sum_to_the_same(uint256 seed)
        public
    {
        Plan memory plan = _plan(seed);
        (bytes32 id, bytes32 terms) = _run(plan, CURATORS, seed);
        address[] memory winners = _winners(plan);
        IAgentRegistry.Party[] memory base = baseTable();
        IAgentRegistry.Party[] memory table = new IAgentRegistry.Party[](base.length + winners.length);
        for (uint256 i = 0; i < base.length; ++i) {
            table[i] = base[i];
        }
        uint256 put = _sum(base) + uint256(plan.seats) * plan.reserve;
        for (uint256 i = 0; i < winners.length; ++i) {
            table[base.length + i] = IAgentRegistry.Party(winners[i], CURATORS, uint16(_price(plan)));
        }
        table[0].bps = uint16(table[0].bps + put - _sum(table));
        vm.assertEq(terms, winners.length == 0 ? bytes32(0) : registry.termsId(AGENT, table), "terms");
        eq(_sum(table), put, "the sum");
        vm.assertTrue(table[0].bps >= base[0].bps, "party 0 never gets less");
        _sameWinners(id, winners);
    }

    function testFuzz_hosts_are_admitted_as_the_plain_auction_says(uint256 seed) public {
        Plan memory plan = _plan(seed);
        (bytes32 id, bytes32 terms) = _run(plan, HOSTS, seed);
        address[] memory winners = _winners(plan);
        IAgentRegistry.Party[] memory table = baseTable();
        table[0].bps = uint16(table[0].bps + 10_000 - _price(plan) - _sum(table));
        vm.assertEq(terms, winners.length == 0 ? bytes32(0) : registry.termsId(AGENT, table), "terms");
        eq(_sum(table) + _price(plan), 10_000, "nothing is lost between parties and host");
        _sameWinners(id, winners);
    }

    function _sameWinners(bytes32 id, address[] memory winners) private view {
        address[] memory found = shares.winnersOf(id);
        eq(found.length, winners.length, "winners");
        for (uint256 i = 0; i < winners.length; ++i) {
            vm.assertEq(found[i], winners[i], "winner");
        }
        eq(coin.balanceOf(address(shares)), 0, "no deposit is left");
    }

    function testFuzz_the_leading_bids_are_the_lowest_in_order(uint256 seed) public {
        Plan memory plan = _plan(seed);
        (bytes32 id,) = _run(plan, CURATORS, seed);
        IShareAuctions.Bid[] memory bids = shares.leading(id);
        vm.assertLe(bids.length, uint256(plan.seats) + 1, "count");
        for (uint256 i = 0; i < bids.length; ++i) {
            eq(_before(plan.bids, bids[i].order - 1), i, "place");
            vm.assertEq(bids[i].bidder, bidder(bids[i].order - 1), "bidder");
            eq(bids[i].bps, plan.bids[bids[i].order - 1], "price");
        }
    }

    // ---- what that auction promises

    function testFuzz_bidding_the_cost_is_never_worse_than_any_other_bid(uint256 seed, uint256 who, uint16 other)
        public
        pure
    {
        Plan memory plan = _plan(seed);
        if (plan.bids.length == 0) return;
        who = bound(who, 0, plan.bids.length - 1);
        uint256 cost = bound(seed >> 128, 1, plan.reserve);
        plan.bids[who] = cost;
        int256 honest = _gain(plan, who, cost);
        vm.assertTrue(honest >= 0, "never under its cost");
        plan.bids[who] = bound(other, 0, plan.reserve);
        vm.assertTrue(_gain(plan, who, cost) <= honest, "no other bid gains more");
    }

    function testFuzz_attack_outbid_oneself_with_a_second_key_never_raises_the_price(uint256 seed, uint16 extra)
        public
        pure
    {
        Plan memory plan = _plan(seed);
        uint256 price = _price(plan);
        uint256[] memory more = new uint256[](plan.bids.length + 1);
        for (uint256 i = 0; i < plan.bids.length; ++i) {
            more[i] = plan.bids[i];
        }
        more[plan.bids.length] = bound(extra, 1, plan.reserve);
        plan.bids = more;
        vm.assertLe(_price(plan), price, "price");
    }
}
