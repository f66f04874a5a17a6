// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {AICoin} from "../../src/AICoin.sol";
import {AgentRegistry} from "../../src/AgentRegistry.sol";
import {Leases} from "../../src/Leases.sol";
import {OfferBook} from "../../src/OfferBook.sol";
import {Parameters} from "../../src/Parameters.sol";
import {PromotionAuctions} from "../../src/PromotionAuctions.sol";
import {Settlement} from "../../src/Settlement.sol";
import {ShareAuctions} from "../../src/ShareAuctions.sol";
import {Staking} from "../../src/Staking.sol";
import {IAgentRegistry} from "../../src/interfaces/IAgentRegistry.sol";
import {ILeases} from "../../src/interfaces/ILeases.sol";
import {IParameters} from "../../src/interfaces/IParameters.sol";
import {Vm} from "../Vm.sol";

/// @notice The market with the real registry, parameters, stakes and settlement. The test contract is bank, governor and both
/// courts. Bidders are small addresses; who must sign is a small key.
abstract contract MarketKit {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint96 internal constant COIN = 1e18;
    uint96 internal constant MIN_STAKE = 100 * COIN;
    uint96 internal constant SHARE_DEPOSIT = 1 * COIN;
    uint96 internal constant PROMOTION_DEPOSIT = 2 * COIN;
    uint96 internal constant RESERVE = 5 * COIN;
    uint16 internal constant LINEAGE_BPS = 2_000;
    uint8 internal constant SLOTS = 3;
    uint40 internal constant GENESIS = 1_800_000_000;
    uint32 internal constant EPOCH = 3 days;
    /// @dev The epoch that tests auction: it begins at GENESIS + 4 EPOCH.
    uint32 internal constant NEXT = 4;

    uint8 internal constant HOSTS = 0;
    uint8 internal constant OEMS = 2;
    uint8 internal constant CURATORS = 4;

    bytes32 internal constant PARENT = keccak256("parent");
    bytes32 internal constant AGENT = keccak256("agent");
    bytes32 internal constant SALT = keccak256("salt");
    address internal constant ANCESTOR = address(0xA0);
    address internal constant MAKER = address(0xA1);
    address internal constant OEM = address(0xA2);
    address internal constant CURATOR = address(0xA3);
    uint256 internal constant TENANT_KEY = 0x111;
    uint256 internal constant HOST_KEY = 0x112;
    address internal constant COLD = address(0xC01D);

    IERC20 internal coin;
    AgentRegistry internal registry;
    Settlement internal settlement;
    Parameters internal parameters;
    Staking internal staking;
    OfferBook internal book;
    ShareAuctions internal shares;
    PromotionAuctions internal promotions;
    Leases internal leases;
    address internal tenant = vm.addr(TENANT_KEY);
    address internal host = vm.addr(HOST_KEY);

    function deployMarket() internal {
        deployMarketOn(new AICoin("Lading", "LADE", 1e10 * uint256(COIN), address(this)));
    }

    /// @dev Now is the first second of the epoch before NEXT.
    function deployMarketOn(IERC20 coin_) internal {
        vm.warp(GENESIS + uint256(NEXT - 1) * EPOCH);
        coin = coin_;
        address auctions = vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 5);
        registry = new AgentRegistry(auctions, address(this));
        settlement = new Settlement(coin, registry, 1 hours, 1 days);
        parameters = new Parameters(address(this), courtParams(), marketParams());
        staking = new Staking(coin, address(this), MIN_STAKE, 7 days);
        book = new OfferBook(settlement);
        shares = new ShareAuctions(coin, registry, parameters, GENESIS, EPOCH);
        promotions = new PromotionAuctions(coin, registry, parameters, GENESIS, EPOCH);
        leases = new Leases(coin, staking, settlement);
        _enrol();
    }

    /// @dev An agent with a parent; parties that accept any table; an active host with a cold owner; a tenant.
    function _enrol() private {
        vm.prank(ANCESTOR);
        registry.register(PARENT, 0, 300);
        vm.prank(MAKER);
        registry.register(AGENT, PARENT, 500);
        vm.prank(OEM);
        registry.setPolicy(OEMS, 1);
        vm.prank(CURATOR);
        registry.setPolicy(CURATORS, 1);
        coin.approve(address(staking), type(uint256).max);
        fund(COLD, 1_000_000 * COIN);
        vm.prank(COLD);
        coin.approve(address(staking), type(uint256).max);
        bytes memory consent = sign65(HOST_KEY, staking.stakeConsentDigest(COLD));
        vm.prank(COLD);
        staking.stake(host, MIN_STAKE, consent);
        fund(host, 1_000_000 * COIN);
        fund(tenant, 1_000_000 * COIN);
    }

    function courtParams() internal pure returns (IParameters.CourtParams memory) {
        return IParameters.CourtParams({
            bond: 10 * COIN,
            slashBps: 5_000,
            burnBps: 4_000,
            rewardBps: 2_000,
            finderBps: 1_000,
            committeeSize: 3,
            quorum: 2,
            drawDelayBlocks: 2,
            commitWindow: 600,
            revealWindow: 300,
            appealWindow: 1 days,
            receiptMaxAge: 3 days,
            jailTime: 30 days,
            answerWindow: 1 days,
            voteDeposit: COIN
        });
    }

    function marketParams() internal pure returns (IParameters.MarketParams memory) {
        return IParameters.MarketParams(SHARE_DEPOSIT, PROMOTION_DEPOSIT, RESERVE, SLOTS, LINEAGE_BPS);
    }

    /// @dev Gives `who` coins and lets all of the market take them.
    function fund(address who, uint256 amount) internal {
        coin.transfer(who, amount);
        address[3] memory spenders = [address(shares), address(promotions), address(leases)];
        for (uint256 i = 0; i < spenders.length; ++i) {
            vm.prank(who);
            coin.approve(spenders[i], type(uint256).max);
        }
    }

    function bidder(uint256 i) internal pure returns (address) {
        return address(uint160(0xB1D000 + i));
    }

    /// @dev 1,000 + 500 + 300 of 10,000, of which the ancestor gets the 300 that it asks: 18 %.
    function baseTable() internal pure returns (IAgentRegistry.Party[] memory parties) {
        parties = new IAgentRegistry.Party[](3);
        parties[0] = IAgentRegistry.Party(MAKER, 1, 1_000);
        parties[1] = IAgentRegistry.Party(OEM, OEMS, 500);
        parties[2] = IAgentRegistry.Party(ANCESTOR, 1, 300);
    }

    function openShares(uint8 role, uint8 seats, uint16 reserveBps) internal returns (bytes32 id) {
        vm.prank(MAKER);
        return shares.open(AGENT, NEXT, role, seats, reserveBps, baseTable(), 0, new bytes[](0));
    }

    function sealShare(bytes32 id, address who, uint16 bps) internal {
        bytes32 seal = keccak256(abi.encode(block.chainid, address(shares), id, who, bps, SALT));
        vm.prank(who);
        shares.commit(id, seal);
    }

    function revealShare(bytes32 id, address who, uint16 bps) internal {
        vm.prank(who);
        shares.reveal(id, bps, SALT, baseTable());
    }

    function sealPromotion(uint8 slot, address who, bytes32 agent, uint96 amount) internal {
        bytes32 seal = keccak256(abi.encode(block.chainid, address(promotions), NEXT, slot, who, agent, amount, SALT));
        vm.prank(who);
        promotions.commit(NEXT, slot, seal);
    }

    function revealPromotion(uint8 slot, address who, bytes32 agent, uint96 amount) internal {
        vm.prank(who);
        promotions.reveal(NEXT, slot, agent, amount, SALT);
    }

    /// @dev As the contracts compute it; here, so that a test can name it after it said what it expects.
    function startOf(uint32 epoch) internal pure returns (uint40) {
        return uint40(GENESIS + uint256(epoch) * EPOCH);
    }

    function commitEnds(uint32 epoch) internal pure returns (uint40) {
        return startOf(epoch) - EPOCH / 3;
    }

    function toReveals() internal {
        vm.warp(commitEnds(NEXT));
    }

    function toSettling() internal {
        vm.warp(startOf(NEXT));
    }

    /// @dev An hour from now, for an hour: 2 slots at 3 wei a second, bonds that do not divide evenly.
    function request() internal view returns (ILeases.Request memory) {
        uint40 start = uint40(vm.getBlockTimestamp()) + 1 hours;
        return ILeases.Request({
            host: host,
            agent: AGENT,
            slots: 2,
            start: start,
            duration: 3_600,
            rate: 3,
            hostBond: 1_001,
            tenantBond: 703,
            acceptBy: start
        });
    }

    function running() internal returns (bytes32 id) {
        vm.prank(tenant);
        id = leases.bid(request());
        vm.prank(host);
        leases.accept(id, host);
    }

    function collect(bytes32 id, uint32 served) internal {
        leases.collect(id, served, signServed(id, served));
    }

    function signServed(bytes32 id, uint32 served) internal view returns (bytes memory) {
        return sign65(TENANT_KEY, leases.servedDigest(id, served));
    }

    function sign65(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function skip(uint256 delta) internal {
        vm.warp(vm.getBlockTimestamp() + delta);
    }

    function bound(uint256 x, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + x % (high - low + 1);
    }

    function eq(uint256 a, uint256 b, string memory why) internal pure {
        vm.assertEq(a, b, why);
    }
}
